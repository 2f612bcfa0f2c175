"""How much a piece of advice matters."""

BROKEN, LOST, WORTH_KNOWING = 3, 2, 1
