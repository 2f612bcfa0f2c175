"use strict";
// What is made of words: tables, tiles, lists.
(() => {
  const { make, draws } = treadle;

  function table(chart, card) {
    let order = { column: -1, up: true };
    const body = make("tbody");
    const number = (text) => {
      const found = /-?[\d,]*\.?\d+/.exec(text);
      return found ? parseFloat(found[0].replaceAll(",", "")) : NaN;
    };
    const heads = chart.head.map((name, column) => {
      const sort = () => {
        order = { column, up: order.column === column ? !order.up : column < chart.left };
        heads.forEach((head, at) => head.setAttribute("aria-sort",
          at !== column ? "none" : order.up ? "ascending" : "descending"));
        draw();
      };
      return make("th", {
        class: column < chart.left ? "left" : "", tabindex: 0, scope: "col", onclick: sort,
        onkeydown: (event) => { if (event.key === "Enter") sort(); },
      }, name);
    });
    function draw() {
      const rows = [...chart.rows];
      if (order.column >= 0) {
        rows.sort((one, other) => {
          const [a, b] = [one[order.column], other[order.column]];
          const [x, y] = [number(a), number(b)];
          const words = (column) => column < chart.left || (isNaN(x) && isNaN(y));
          const by = words(order.column) ? a.localeCompare(b)
            : (isNaN(x) ? -Infinity : x) - (isNaN(y) ? -Infinity : y) || 0;
          return order.up ? by : -by;
        });
      }
      body.replaceChildren(...rows.map((row) => make("tr", {}, ...row.map((text, column) =>
        make("td", {
          class: [column < chart.left ? "left" : "", column === 0 ? "first" : "",
            /(pass|miss)$/.exec(text)?.[0] ?? ""].join(" ").trim(),
        }, text)))));
    }
    draw();
    card.append(make("div", { class: "scroll" },
      make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body)));
  }

  function tiles(section, card) {
    card.append(make("div", { class: "tiles" }, ...section.tiles.map((tile) =>
      make("div", { class: "tile" },
        make("span", { class: "label" }, tile.label),
        make("span", { class: "big" }, tile.value),
        tile.under ? make("span", { class: "label" }, tile.under) : null))));
  }

  const WORDS = { 3: "broken", 2: "costly", 1: "worth knowing" };
  function items(section, card) {
    card.append(make("ol", { class: "items" }, ...section.items.map((item) =>
      make("li", { class: `severity${item.severity}` },
        make("div", { class: "said" }, make("span", { class: "badge" }, WORDS[item.severity]), item.title),
        make("p", {}, item.text)))));
  }

  draws.table = table;
  draws.tiles = tiles;
  draws.items = items;
})();
