"use strict";
// Bars and lines.
(() => {
  const { make, shown, short, color, tell, hush, choice, legend, sidesOf, redraws, draws } = treadle;

  // -- bars --

  function bars(chart, card) {
    const state = { metric: 0, side: "", hidden: new Set(chart.hidden) };
    const sides = sidesOf(chart.rows);
    const area = make("div");
    card.append(make("div", { class: "controls" },
      choice(chart.metrics.map((m) => m.name), (at) => { state.metric = at; draw(); }, "quantity"),
      choice(["both", ...sides].slice(sides.length > 1 ? 0 : sides.length + 1),
        (at) => { state.side = at ? sides[at - 1] : ""; draw(); }, "Python"),
      legend(chart.series.map((name, number) => ({ name, number })), state.hidden, draw)), area);

    function draw() {
      hush();
      const metric = chart.metrics[state.metric];
      const series = chart.series.filter((name) => !state.hidden.has(name));
      const rows = chart.rows.filter((row) => !state.side || !row.side || row.side === state.side);
      const value = (row, name) => (row.values[name] || [])[state.metric];
      const all = rows.flatMap((row) => series.map((name) => value(row, name)))
        .filter((one) => one != null).sort((a, b) => a - b);
      if (chart.stacked) {
        drawStacked(metric, series, rows, value);
        return;
      }
      // A few that dwarf the others would press those to the edge: their bars are cut.
      const highest = chart.whole ? all.at(-1) || 1 : Math.min(all.at(-1) || 1, 3 * (all[all.length >> 1] || 1));
      const width = area.clientWidth < 560 ? 76 : 84;
      area.replaceChildren(...rows.map((row) => make("div", { class: row.ours ? "row ours" : "row" },
        make("div", { class: "name" }, row.label,
          row.under ? make("span", { class: "side" }, row.under) : null),
        make("div", {}, ...series.filter((name) => value(row, name) != null).map((name) => {
          const here = value(row, name);
          const part = Math.min(here / highest, 1) * width;
          return make("div", {
            class: "bar",
            onpointermove: (event) => tell(event, `${row.label} ${row.under}`, [
              ...chart.metrics.map((m, at) => [m.name, shown(row.values[name][at], m)]),
              ["series", name, chart.series.indexOf(name)],
              ...(row.note ? [["", row.note]] : []),
            ]),
            onpointerleave: hush,
          },
          make("div", {
            class: here > highest ? "fill cut" : "fill",
            style: `width: ${part.toFixed(2)}%; background: ${color(chart.series.indexOf(name))}`,
          }),
          make("span", { class: "value" }, shown(here, metric)));
        })))).filter((node) => node.querySelector(".bar")));
      if (!area.firstChild) area.append(make("p", { class: "note" }, "Nothing is chosen."));
    }
    // One bar a row: its series end to end, the sum behind them.
    function drawStacked(metric, series, rows, value) {
      const sum = (row) => series.reduce((total, name) => total + (value(row, name) || 0), 0);
      const highest = Math.max(...rows.map(sum)) || 1;
      const width = area.clientWidth < 560 ? 74 : 84;
      area.replaceChildren(...rows.filter((row) => sum(row) > 0).map((row) =>
        make("div", { class: "row" },
          make("div", { class: "name" }, row.label,
            row.under ? make("span", { class: "side" }, row.under) : null),
          make("div", { class: "bar" },
            make("div", { class: "stack", style: `width: ${(sum(row) / highest * width).toFixed(2)}%` },
              ...series.filter((name) => value(row, name) > 0).map((name) => make("div", {
                class: "part",
                style: `flex-grow: ${value(row, name)}; background: ${color(chart.series.indexOf(name))}`,
                onpointermove: (event) => tell(event, row.label, [
                  ...series.filter((one) => value(row, one) != null).map((one) => [
                    one, `${shown(value(row, one), metric)} · ${(100 * value(row, one) / sum(row)).toFixed(0)} %`,
                    chart.series.indexOf(one)]),
                  ["together", shown(sum(row), metric)],
                ]),
                onpointerleave: hush,
              }))),
            make("span", { class: "value" }, shown(sum(row), metric))))));
      if (!area.firstChild) area.append(make("p", { class: "note" }, "Nothing is chosen."));
    }
    redraws.push(draw);
    draw();
  }

  // -- lines --

  function niceSteps(low, high, wanted) {
    const rough = (high - low || 1) / wanted;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((part) => rough <= part * power * 1.0001);
    const found = [];
    for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-6; at += step) {
      found.push(Math.abs(at) < step * 1e-6 ? 0 : at);
    }
    return found;
  }

  function lines(chart, card) {
    const state = { metric: 0, side: "", hidden: new Set(chart.lines.filter((l) => l.hidden).map(key)) };
    function key(line) { return line.side ? `${line.name} · ${line.side}` : line.name; }
    const numbered = new Map();
    for (const line of chart.lines) {
      if (!numbered.has(line.name)) numbered.set(line.name, numbered.size);
    }
    const sides = sidesOf(chart.lines);
    const dashes = (line) => line.dashed || (sides.length > 1 && line.side === sides[1]);
    const area = make("div");
    card.append(make("div", { class: "controls" },
      choice(chart.metrics.map((m) => m.name), (at) => { state.metric = at; draw(); }, "quantity"),
      choice(["both", ...sides].slice(sides.length > 1 ? 0 : sides.length + 1),
        (at) => { state.side = at ? sides[at - 1] : ""; draw(); }, "Python"),
      legend(chart.lines.map((line) => (
        { name: key(line), number: numbered.get(line.name), hollow: dashes(line) })),
      state.hidden, draw)), area);

    function draw() {
      hush();
      const metric = chart.metrics[state.metric];
      const visible = chart.lines.filter((line) => !state.hidden.has(key(line))
        && (!state.side || !line.side || line.side === state.side));
      const of = (point) => point.values[state.metric];
      const points = visible.flatMap((line) => line.points).filter((p) => of(p) != null);
      if (!points.length) {
        area.replaceChildren(make("p", { class: "note" }, "Nothing is chosen, or nothing was measured."));
        return;
      }
      const width = Math.max(area.clientWidth, 260), height = width < 560 ? 260 : 320;
      const edge = { left: 56, right: 14, top: 10, bottom: 44 };
      const xs = [...new Set(points.map((p) => p.x))].sort((a, b) => a - b);
      const scale = (x) => chart.x.log ? Math.log2(Math.max(x, 0) + (xs[0] <= 0 ? 1 : 0)) : x;
      const [x0, x1] = [scale(xs[0]), scale(xs.at(-1))];
      const noise = (p) => state.metric === 0 && p.low != null ? [p.low, p.high] : [];
      const ys = points.flatMap((p) => [of(p), ...noise(p)]);
      let [y0, y1] = [Math.min(...ys), Math.max(...ys)];
      if (metric.from_zero) y0 = Math.min(0, y0);
      const room = (y1 - y0 || Math.abs(y1) || 1) * 0.06;
      y1 += room;
      if (!metric.from_zero) y0 -= room;
      const toX = (x) => edge.left + (x1 === x0 ? 0.5 : (scale(x) - x0) / (x1 - x0))
        * (width - edge.left - edge.right);
      const toY = (y) => height - edge.bottom - (y - y0) / (y1 - y0)
        * (height - edge.top - edge.bottom);
      const svg = make("svg", {
        viewBox: `0 0 ${width} ${height}`, height, role: "img",
        "aria-label": `${chart.title}: ${metric.name}`,
      });
      for (const at of niceSteps(y0, y1, height / 56)) {
        svg.append(
          make("line", { class: "grid", x1: edge.left, x2: width - edge.right, y1: toY(at), y2: toY(at) }),
          make("text", { x: edge.left - 8, y: toY(at) + 4, "text-anchor": "end" }, short(at)));
      }
      let free = -Infinity;
      for (const x of xs) {
        const words = chart.x.names ? chart.x.names[x] || "" : short(x);
        const half = words.length * 3.6;
        const at = Math.min(Math.max(toX(x), edge.left - 20 + half), width - half);
        if (at - half < free + 8) continue;
        free = at + half;
        svg.append(make("text", { x: at, y: height - edge.bottom + 18, "text-anchor": "middle" }, words));
      }
      svg.append(
        make("line", { class: "axis", x1: edge.left, x2: width - edge.right,
          y1: height - edge.bottom, y2: height - edge.bottom }),
        make("text", { x: width - edge.right, y: height - 6, "text-anchor": "end" }, chart.x.label));
      for (const line of visible) {
        const paint = color(numbered.get(line.name));
        const known = line.points.filter((p) => of(p) != null);
        if (!known.length) continue;
        const noisy = known.filter((p) => noise(p).length);
        if (noisy.length > 1) {
          const band = [...noisy.map((p) => `${toX(p.x)} ${toY(p.high)}`),
            ...noisy.toReversed().map((p) => `${toX(p.x)} ${toY(p.low)}`)];
          svg.append(make("path", { class: "noise", d: `M${band.join("L")}Z`, style: `fill: ${paint}` }));
        }
        svg.append(make("path", {
          class: "series", d: `M${known.map((p) => `${toX(p.x)} ${toY(of(p))}`).join("L")}`,
          style: `stroke: ${paint}`, "stroke-dasharray": dashes(line) ? "6 5" : null,
        }));
        for (const p of known) {
          svg.append(make("circle", { class: p.mark ? "marked" : "", cx: toX(p.x), cy: toY(of(p)),
            r: p.mark ? 6 : 3, style: p.mark ? "" : `fill: ${paint}` }));
        }
      }
      const cursor = make("line", { class: "cursor", y1: edge.top, y2: height - edge.bottom,
        x1: -99, x2: -99 });
      svg.append(cursor);
      const look = (event) => {
        const at = (event.clientX - svg.getBoundingClientRect().left) * width / svg.clientWidth;
        const x = xs.reduce((best, one) => Math.abs(toX(one) - at) < Math.abs(toX(best) - at) ? one : best);
        cursor.setAttribute("x1", toX(x));
        cursor.setAttribute("x2", toX(x));
        const rows = visible.map((line) => [line, line.points.find((p) => p.x === x)])
          .filter(([, p]) => p && of(p) != null).sort(([, a], [, b]) => of(b) - of(a));
        const title = chart.x.names ? chart.x.names[x] : `${x.toLocaleString("en-US")} ${chart.x.label}`;
        tell(event, title, rows.map(([line, p]) => [
          key(line) + (p.mark ? ` (${p.mark})` : ""), shown(of(p), metric),
          numbered.get(line.name), dashes(line)]));
      };
      svg.addEventListener("pointermove", look);
      svg.addEventListener("pointerdown", look);
      svg.addEventListener("pointerleave", () => { hush(); cursor.setAttribute("x1", -99); cursor.setAttribute("x2", -99); });
      area.replaceChildren(svg);
    }
    redraws.push(draw);
    draw();
  }

  draws.bars = bars;
  draws.lines = lines;
})();
