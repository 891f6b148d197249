(() => {
  "use strict";
  const root = document.documentElement;
  const plots = [...document.querySelectorAll("[data-figure]")];

  // Charts name colours by role; the style sheet says what a role looks like on this screen.
  const painter = () => {
    const style = getComputedStyle(root);
    const paint = (value, isColour) => {
      if (typeof value === "string") {
        const role = isColour && /^var\((--[a-z0-9-]+)\)$/.exec(value);
        return role ? style.getPropertyValue(role[1]).trim() : value;
      }
      if (Array.isArray(value)) return value.map((item) => paint(item, isColour));
      if (value === null || typeof value !== "object") return value;
      return Object.fromEntries(
        Object.entries(value).map(([key, item]) => [key, paint(item, /color/.test(key) && item !== null)]),
      );
    };
    return paint;
  };

  const draw = (plot, paint, width) => {
    const figure = JSON.parse(document.getElementById(plot.dataset.figure).textContent);
    const { data, layout } = paint(figure, false);
    if (width) layout.width = Math.min(width, plot.clientWidth || width);
    Plotly.react(plot, data, layout, { responsive: true, displayModeBar: false });
  };
  const drawAll = (width) => {
    const paint = painter();
    plots.forEach((plot) => draw(plot, paint, width));
  };

  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll());

  // Paper is light, narrow, and cannot be clicked on.
  let closed = [];
  addEventListener("beforeprint", () => {
    root.classList.add("print");
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((details) => { details.open = true; });
    drawAll(680);
  });
  addEventListener("afterprint", () => {
    root.classList.remove("print");
    closed.forEach((details) => { details.open = false; });
    drawAll();
  });
})();
