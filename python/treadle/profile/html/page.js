"use strict";
// Puts the sections on the page.
(() => {
  const { page, make, redraws, draws } = treadle;

  const main = document.getElementById("sections");
  for (const chart of page.sections) {
    const card = make("section", {}, make("h2", {}, chart.title),
      chart.note ? make("p", { class: "note" }, chart.note) : null);
    main.append(card);
    draws[chart.kind](chart, card);
  }
  let waiting = 0;
  let drawnFor = innerWidth;
  addEventListener("resize", () => {
    cancelAnimationFrame(waiting);
    if (innerWidth === drawnFor) return;
    waiting = requestAnimationFrame(() => {
      drawnFor = innerWidth;
      redraws.forEach((draw) => draw());
    });
  });

  const root = document.documentElement;
  const button = document.getElementById("theme");
  const isDark = () => root.dataset.theme
    ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; name(); });
  name();
})();
