"use strict";
// What draws the page's data (model.py) is made of. Plain DOM and SVG: nothing is fetched.
const treadle = (() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const SVG = "http://www.w3.org/2000/svg";
  const redraws = [];

  // -- small tools --

  function make(tag, attributes = {}, ...children) {
    const inSvg = SVG_TAGS.has(tag);
    const node = inSvg ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "style") node.style.cssText = value;
      else if (value != null) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child != null));
    return node;
  }
  const SVG_TAGS = new Set(["svg", "g", "line", "path", "circle", "text", "rect"]);

  function shown(value, metric) {
    if (value == null) return "-";
    const digits = Math.abs(value) < 1e5 ? metric.digits : 0;
    const told = value.toLocaleString("en-US", {
      minimumFractionDigits: digits, maximumFractionDigits: digits,
    });
    return metric.unit ? `${told} ${metric.unit}` : told;
  }
  function short(value) {
    const size = Math.abs(value);
    if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)} M`;
    if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)} k`;
    return (+value.toPrecision(3)).toLocaleString("en-US");
  }
  const color = (number) => `var(--c${number % 10})`;
  const swatch = (number, hollow) => make("span", {
    class: hollow ? "swatch hollow" : "swatch",
    style: hollow ? `color: ${color(number)}` : `background: ${color(number)}`,
  });

  function tell(event, title, rows) {
    tip.replaceChildren(make("b", {}, title), ...rows.map(([name, value, number, hollow]) =>
      make("div", {},
        make("span", {}, ...(number == null ? [] : [swatch(number, hollow)]), name),
        make("span", {}, value))));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, innerWidth - box.width - 8);
    const below = event.clientY + 18;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${below + box.height > innerHeight ? event.clientY - box.height - 12 : below}px`;
  }
  const hush = () => { tip.hidden = true; };
  addEventListener("scroll", hush, { passive: true });

  // Buttons of which exactly one is pressed; none where there is no choice.
  function choice(names, chosen, label) {
    if (names.length < 2) return null;
    const buttons = names.map((name, at) => make("button", {
      type: "button", "aria-pressed": at === 0, onclick: () => {
        buttons.forEach((other, place) => other.setAttribute("aria-pressed", place === at));
        chosen(at);
      },
    }, name));
    return make("div", { class: "group", role: "group", "aria-label": label }, ...buttons);
  }
  // A legend whose entries switch on and off.
  function legend(entries, hidden, changed) {
    if (entries.length < 2) return null;
    return make("div", { class: "group", role: "group", "aria-label": "series" },
      ...entries.map(({ name, number, hollow }) => {
        const button = make("button", {
          type: "button", class: "chip", "aria-pressed": !hidden.has(name), onclick: () => {
            if (!hidden.delete(name)) hidden.add(name);
            button.setAttribute("aria-pressed", !hidden.has(name));
            changed();
          },
        }, swatch(number, hollow), name);
        return button;
      }));
  }
  const sidesOf = (items) => [...new Set(items.map((item) => item.side).filter(Boolean))];

  return { page, make, shown, short, color, swatch, tell, hush, choice, legend, sidesOf, redraws, draws: {} };
})();
