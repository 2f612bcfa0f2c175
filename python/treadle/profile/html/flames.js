"use strict";
// A flame graph, from the root down: a click zooms, a search lights up what it finds.
(() => {
  const { make, tell, hush, redraws, draws } = treadle;
  const ROW = 21;
  const LETTER = 6.6;  // width of a letter at 12 px, on average

  // Colours follow the file, so that a library looks the same wherever it is called.
  function hue(box) {
    let sum = 0;
    for (const letter of box.f || box.n) sum = (sum * 31 + letter.codePointAt(0)) % 9973;
    return sum % 360;
  }

  function flames(section, card) {
    const root = section.root;
    const above = new Map();
    (function link(box) { for (const child of box.k) { above.set(child, box); link(child); } })(root);
    let focus = root;
    let wanted = "";

    const search = make("input", {
      type: "search", placeholder: "Search functions or files", "aria-label": "search the flame graph",
      oninput: () => { wanted = search.value.trim().toLowerCase(); draw(); },
    });
    const reset = make("button", { type: "button", onclick: () => zoom(root) }, "Zoom out");
    const found = make("span", { class: "note", role: "status" });
    const area = make("div", { class: "flames" });
    card.append(make("div", { class: "controls" }, search, reset, found), area);

    function zoom(box) {
      focus = box;
      hush();
      draw();
    }
    const matches = (box) => wanted && `${box.n} ${box.f}`.toLowerCase().includes(wanted);

    // Samples below boxes that match, each counted once however often it matches.
    function matched(box) {
      return matches(box) ? box.c : box.k.reduce((sum, child) => sum + matched(child), 0);
    }

    function draw() {
      const width = Math.max(area.clientWidth, 260);
      const path = [];
      for (let box = focus; box; box = above.get(box)) path.unshift(box);
      const rows = [];
      path.slice(0, -1).forEach((box, depth) => rows.push([box, 0, width, depth, true]));
      let deepest = path.length - 1;
      (function place(box, left, room, depth) {
        rows.push([box, left, room, depth, false]);
        deepest = Math.max(deepest, depth);
        let at = left;
        for (const child of box.k) {
          const share = room * child.c / box.c;
          if (share >= 0.5) place(child, at, share, depth + 1);
          at += share;
        }
      })(focus, 0, width, path.length - 1);

      const height = (deepest + 1) * ROW;
      const svg = make("svg", {
        viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": section.title,
      });
      for (const [box, left, room, depth, outside] of rows) {
        const kind = !box.f ? "plain" : matches(box) ? "hit" : "";
        const letters = Math.floor((room - 8) / LETTER);
        const words = box.n.length > letters ? `${box.n.slice(0, Math.max(0, letters - 1))}…` : box.n;
        const group = make("g", {
          class: ["box", kind, outside ? "outside" : "", wanted && kind !== "hit" ? "faded" : ""].join(" "),
          onclick: () => zoom(box),
          onpointermove: (event) => tell(event, box.n, [
            ...(box.f ? [[box.f, ""]] : []),
            ["samples", box.c.toLocaleString("en-US")],
            ["of all", part(box.c, root.c)],
            ...(focus === root ? [] : [["of what is shown", part(box.c, focus.c)]]),
            ["itself", part(box.c - box.k.reduce((sum, child) => sum + child.c, 0), root.c)],
          ]),
          onpointerleave: hush,
        },
        make("rect", {
          x: left, y: depth * ROW, width: Math.max(room - 1, 0.5), height: ROW - 1, rx: 2,
          style: box.f ? `--hue: ${hue(box)}` : "",
        }),
        letters >= 3 ? make("text", { x: left + 4, y: depth * ROW + 14 }, words) : null);
        svg.append(group);
      }
      area.replaceChildren(svg);
      reset.disabled = focus === root;
      found.textContent = wanted ? `${part(matched(root), root.c)} of the samples` : "";
    }
    const part = (count, of) => `${(100 * count / (of || 1)).toFixed(1)} %`;

    if (!root.c) {
      card.append(make("p", { class: "note" }, "Nothing was seen."));
      return;
    }
    redraws.push(draw);
    draw();
  }

  draws.flames = flames;
})();
