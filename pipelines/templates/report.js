"use strict";

const figures = JSON.parse(document.getElementById("figures").textContent);
const chooser = document.getElementById("series");

function colour(role) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + role).trim();
}

function translucent(hex, share) {
  const parts = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${parts.join(",")},${share})`;
}

/* Traces name a role; the page's colours decide how it looks in light and in dark. */
function themedTrace(trace) {
  const themed = structuredClone(trace);
  if (trace.type === "heatmap") {
    themed.colorscale = [[0, colour("low")], [0.5, colour("card")], [1, colour("high")]];
    return themed;
  }
  const ink = colour(trace.meta.role);
  if (trace.meta.fill) {
    themed.fillcolor = translucent(ink, trace.meta.role === "band" ? 0.16 : 0.28);
    themed.line.color = translucent(ink, 0);
  } else if (trace.marker) {
    themed.marker.color = ink;
    if (trace.type === "bar") themed.marker.line.color = ink;
  } else {
    themed.line.color = ink;
  }
  return themed;
}

function themedLayout(layout) {
  const axis = {
    gridcolor: colour("grid"),
    linecolor: colour("rule"),
    zerolinecolor: colour("rule"),
    automargin: true,
  };
  return {
    ...structuredClone(layout),
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("ink"), size: 12, family: "system-ui, sans-serif" },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("rule"), font: { color: colour("ink") } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("soft"), activecolor: colour("accent") },
    margin: { l: 60, r: 15, t: 30, b: 40 },
    xaxis: { ...axis, ...layout.xaxis },
    yaxis: { ...axis, ...layout.yaxis },
    ...(layout.yaxis2 && { yaxis2: { ...axis, ...layout.yaxis2 } }),
  };
}

function draw(place) {
  const name = "bySeries" in place.dataset ? `${place.id}-${chooser.value}` : place.id;
  const figure = figures[name];
  const x = typeof figure.x === "string" ? figures[figure.x].x : figure.x;
  const traces = figure.data.map((trace) => themedTrace(trace.x === "shared" ? { ...trace, x } : trace));
  const options = {
    responsive: true,
    displaylogo: false,
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
  };
  Plotly.react(place, traces, themedLayout(figure.layout), options);
}

const places = [...document.querySelectorAll(".figure")];
const drawAll = () => places.forEach(draw);
drawAll();
if (chooser) {
  chooser.addEventListener("change", () => places.filter((place) => "bySeries" in place.dataset).forEach(draw));
}
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
