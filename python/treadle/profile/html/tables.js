"use strict";
// What is made of words: tables, tiles, lists.
(() => {
  const { make, draws } = treadle;

  function table(chart, card) {
    // A grouped table has its first column as headings: it sorts within its groups.
    const skipped = chart.grouped ? 1 : 0;
    let order = { column: -1, up: true };
    const body = make("tbody");
    const number = (text) => {
      const found = /-?[\d,]*\.?\d+/.exec(text);
      return found ? parseFloat(found[0].replaceAll(",", "")) : NaN;
    };
    const heads = chart.head.slice(skipped).map((name, at) => {
      const column = at + skipped;
      const sort = () => {
        order = { column, up: order.column === column ? !order.up : column < chart.left };
        heads.forEach((head, other) => head.setAttribute("aria-sort",
          other !== at ? "none" : order.up ? "ascending" : "descending"));
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
        const groups = [...new Set(rows.map((row) => row[0]))];
        rows.sort((one, other) => {
          if (chart.grouped && one[0] !== other[0]) return groups.indexOf(one[0]) - groups.indexOf(other[0]);
          const [a, b] = [one[order.column], other[order.column]];
          const [x, y] = [number(a), number(b)];
          const words = (column) => column < chart.left || (isNaN(x) && isNaN(y));
          const by = words(order.column) ? a.localeCompare(b)
            : (isNaN(x) ? -Infinity : x) - (isNaN(y) ? -Infinity : y) || 0;
          return order.up ? by : -by;
        });
      }
      body.replaceChildren(...rows.flatMap((row, at) => {
        const cells = row.map((text, column) => make("td", {
          class: [column < chart.left ? "left" : "", column === skipped ? "first" : "",
            /(pass|miss)$/.exec(text)?.[0] ?? ""].join(" ").trim(),
        }, text)).slice(skipped);
        const heading = chart.grouped && row[0] !== rows[at - 1]?.[0]
          ? [make("tr", { class: "heading" }, make("th", { colspan: cells.length, scope: "rowgroup" },
            make("span", {}, row[0])))] : [];
        return [...heading, make("tr", {}, ...cells)];
      }));
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
