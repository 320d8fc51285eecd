// Charts of an exposure target: planned and delivered attention, the forecast, and the price.

import { amount, compact, h, i18n, percent, svg, targetPrice, time } from "./core.js";

const MARGIN_LEFT = 64, MARGIN_RIGHT = 14, MARGIN_TOP = 12, MARGIN_BOTTOM = 24;

/** Draw planned and delivered attention over time, with the forecast interval at the deadline. */
export function courseChart(target, width) {
  const { course } = target;
  const [from, to] = [Date.parse(target.since), Date.parse(target.until)];
  const now = Math.min(Math.max(Date.now(), from), to);
  const hasForecast = Boolean(target.forecast) && now < to;
  const high = hasForecast ? target.forecast.high * target.amount : 0;
  const top = Math.max(target.amount, target.delivered, target.planned, high, ...course.map((point) => Math.max(point.planned, point.delivered))) * 1.05;
  const plot = frame(width, 240, [from, to], [0, top], amount);
  const last = [plot.x(now), plot.y(target.delivered)];
  const series = (name) => [...course.map((point) => [plot.x(Date.parse(point.at)), plot.y(point[name])]), [plot.x(now), plot.y(target[name])]];
  const start = [plot.x(from), plot.y(0)];
  const cone = hasForecast ? [
    svg("polygon", { class: "cone", points: join([last, [plot.x(to), plot.y(high)], [plot.x(to), plot.y(target.forecast.low * target.amount)]]) }),
    svg("line", { class: "foreseen", x1: last[0], y1: last[1], x2: plot.x(to), y2: plot.y(target.forecast.expected * target.amount) }),
  ] : [];
  return figure("course", i18n.message(target.description), plot, [
    line("goal", [[plot.x(from), plot.y(target.amount)], [plot.x(to), plot.y(target.amount)]]), ...cone,
    line("planned", [start, ...series("planned")]), line("delivered", [start, ...series("delivered")]),
    svg("circle", { class: "delivered", cx: last[0], cy: last[1], r: 3.5 }),
  ], [["planned", "planned"], ["delivered", "delivered"], ...(hasForecast ? [["foreseen", "forecast"]] : []), ["goal", "amount"]], readout(target, plot, amount));
}

/** Draw the price over time, with its maximum. */
export function priceChart(target, width) {
  const [from, to] = [Date.parse(target.since), Date.parse(target.until)];
  const now = Math.min(Math.max(Date.now(), from), to);
  const points = [...target.course.map((point) => [Date.parse(point.at), point.price]), [now, target.price]];
  const highest = Math.max(...points.map(([, price]) => price), 1e-3);
  const showsLimit = highest > target.max_price / 3; // a far higher maximum would flatten the curve
  const tick = target.price_unit === "item utility" ? (value) => percent(value, 0) : compact;
  const plot = frame(width, 150, [from, to], [0, (showsLimit ? Math.max(highest, target.max_price) : highest) * 1.1], tick);
  const limit = showsLimit ? [line("goal", [[plot.x(from), plot.y(target.max_price)], [plot.x(to), plot.y(target.max_price)]])] : [];
  const current = targetPrice(target, target.price);
  return figure("price_course", current, plot, [...limit, line("price", points.map(([at, price]) => [plot.x(at), plot.y(price)]))],
    [["price", "target_price"], ...(showsLimit ? [["goal", "max_price"]] : [])]);
}

/** Draw the axes: time and amount, with a few evenly spaced ticks on each. */
function frame(width, height, [from, to], [low, high], format) {
  const x = (at) => MARGIN_LEFT + ((at - from) / Math.max(to - from, 1)) * (width - MARGIN_LEFT - MARGIN_RIGHT);
  const y = (value) => height - MARGIN_BOTTOM - ((value - low) / Math.max(high - low, 1e-12)) * (height - MARGIN_TOP - MARGIN_BOTTOM);
  const grid = ticks(high).map((value) => svg("g", {},
    svg("line", { class: "grid", x1: MARGIN_LEFT, x2: width - MARGIN_RIGHT, y1: y(value), y2: y(value) }),
    svg("text", { x: MARGIN_LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, format(value))));
  const count = Math.max(2, Math.min(6, Math.floor((width - MARGIN_LEFT) / 120)));
  const times = Array.from({ length: count }, (_, n) => from + ((to - from) * n) / (count - 1)).map((at, n) => svg(
    "text", { x: x(at), y: height - 6, "text-anchor": n === 0 ? "start" : n === count - 1 ? "end" : "middle" }, tickLabel(at, to - from)));
  return { width, height, x, y, axes: [...grid, ...times] };
}

const DAY = 86_400_000;
const date = { month: "2-digit", day: "2-digit" };

/** Format a time tick: hours for up to two days, dates for up to a year, and longer with the year. */
const tickLabel = (at, span) => new Date(at).toLocaleString(i18n.language === "zh" ? "zh-CN" : "en-GB", span > 365 * DAY
  ? { year: "numeric", ...date } : span > 2 * DAY ? date : { hour: "2-digit", minute: "2-digit", hour12: false });

/** Return round values up to `high`, in steps of 1, 2 or 5 times a power of ten. */
function ticks(high) {
  const raw = high / 4, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((m) => m * power >= raw) * power;
  return Array.from({ length: Math.floor(high / step) + 1 }, (_, n) => n * step);
}

const join = (points) => points.map((point) => point.map((value) => value.toFixed(1)).join(",")).join(" ");
const line = (name, points) => svg("polyline", { class: name, points: join(points) });

function figure(label, description, { width, height, axes }, shapes, legend, readoutAt = null) {
  const drawing = svg("svg", { class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${i18n.label(label)}: ${description}` }, axes, shapes);
  const keys = legend.map(([name, key]) => h("span", { class: `key ${name}` }, i18n.label(key)));
  const readoutText = h("span", { class: "muted read", "aria-hidden": "true" });
  if (readoutAt) drawing.addEventListener("pointermove", (event) => { readoutText.textContent = readoutAt(event.offsetX); });
  return h("figure", {}, h("figcaption", {}, h("h3", {}, i18n.label(label)), keys, readoutText), drawing);
}

/** Return a function that describes the recorded point nearest to a horizontal offset on the chart. */
const readout = (target, { x }, format) => (offsetX) => {
  const { course } = target;
  if (!course.length) return "";
  const distance = (point) => Math.abs(x(Date.parse(point.at)) - offsetX);
  const near = course.reduce((best, point) => (distance(point) < distance(best) ? point : best));
  const share = near.planned > 0 ? ` (${percent(near.delivered / near.planned)})` : "";
  return `${time(near.at)} · ${i18n.label("planned")} ${format(near.planned)} · ${i18n.label("delivered")} ${format(near.delivered)}${share} · ${i18n.label("target_price")} ${targetPrice(target, near.price)}`;
};
