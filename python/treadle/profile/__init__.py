"""`treadle profile`: drives an app and shows where its time goes."""
