// Draws every figure of the page, in the colours of the reader's theme.
"use strict";
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const finger = window.matchMedia("(pointer: coarse)");
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function themed(layout) {
    const lines = { gridcolor: colour("--line"), linecolor: colour("--line-strong") };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis/.test(key)) Object.assign(layout[key], lines);
    }
    layout.font.color = colour("--ink");
    layout.hoverlabel.bgcolor = colour("--panel");
    layout.hoverlabel.font.color = colour("--ink");
    layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: colour("--quiet"), activecolor: colour("--ink") };
    if (finger.matches) layout.dragmode = false; // or a finger could not scroll past the figure
    return layout;
  }

  function draw() {
    for (const place of document.querySelectorAll(".plot")) {
      const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
      Plotly.react(place, figure.data, themed(figure.layout), config);
    }
  }

  // A list that steers a group of figures: each has one version of its data for every entry.
  for (const list of document.querySelectorAll("select[data-steers]")) {
    list.addEventListener("change", () => {
      for (const place of document.querySelectorAll(".plot[data-group]")) {
        if (place.dataset.group === list.dataset.steers) place.dataset.figure = `${place.dataset.stem}-${list.value}`;
      }
      draw();
    });
  }

  draw();
  dark.addEventListener("change", draw);
})();
