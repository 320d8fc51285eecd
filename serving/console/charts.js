// Drawings of a target's course: what was planned and delivered, what is foreseen, and the price.

import { amount, brief, equivalents, h, percent, say, svg, time } from "./core.js";

const LEFT = 64, RIGHT = 14, TOP = 12, BOTTOM = 24;

/** Planned against delivered over time, with the interval of the forecast at the deadline. */
export function courseChart(target, width) {
  const { course } = target;
  const [from, to] = [Date.parse(target.since), Date.parse(target.until)];
  const now = Math.min(Math.max(Date.now(), from), to);
  const foreseen = Boolean(target.forecast) && now < to;
  const high = foreseen ? target.forecast.high * target.amount : 0;
  const most = Math.max(target.amount, target.delivered, target.planned, high, ...course.map((at) => Math.max(at.planned, at.delivered))) * 1.05;
  const plot = frame(width, 240, [from, to], [0, most], amount);
  const last = [plot.x(now), plot.y(target.delivered)];
  const at = (name) => [...course.map((moment) => [plot.x(Date.parse(moment.at)), plot.y(moment[name])]), [plot.x(now), plot.y(target[name])]];
  const start = [plot.x(from), plot.y(0)];
  const cone = foreseen ? [
    svg("polygon", { class: "cone", points: join([last, [plot.x(to), plot.y(high)], [plot.x(to), plot.y(target.forecast.low * target.amount)]]) }),
    svg("line", { class: "foreseen", x1: last[0], y1: last[1], x2: plot.x(to), y2: plot.y(target.forecast.expected * target.amount) }),
  ] : [];
  return figure("course", say.told(target.description), plot, [
    line("goal", [[plot.x(from), plot.y(target.amount)], [plot.x(to), plot.y(target.amount)]]), ...cone,
    line("planned", [start, ...at("planned")]), line("delivered", [start, ...at("delivered")]),
    svg("circle", { class: "delivered", cx: last[0], cy: last[1], r: 3.5 }),
  ], [["planned", "planned"], ["delivered", "delivered"], ...(foreseen ? [["foreseen", "forecast"]] : []), ["goal", "amount"]], readout(course, plot, amount));
}

/** The price over time, below the highest it may be. */
export function priceChart(target, width) {
  const [from, to] = [Date.parse(target.since), Date.parse(target.until)];
  const now = Math.min(Math.max(Date.now(), from), to);
  const points = [...target.course.map((moment) => [Date.parse(moment.at), moment.price]), [now, target.price]];
  const most = Math.max(...points.map(([, price]) => price), 1e-3);
  const limited = most > target.max_price / 3; // a limit far above would press the course flat
  const plot = frame(width, 150, [from, to], [0, (limited ? Math.max(most, target.max_price) : most) * 1.1], brief);
  const limit = limited ? [line("goal", [[plot.x(from), plot.y(target.max_price)], [plot.x(to), plot.y(target.max_price)]])] : [];
  const said = `${equivalents(target.price)} ${say.word("play_equivalents")}`;
  return figure("price_course", said, plot, [...limit, line("price", points.map(([at, price]) => [plot.x(at), plot.y(price)]))],
    [["price", "price"], ...(limited ? [["goal", "max_price"]] : [])]);
}

/** A frame of time and amount with a few even marks on both. */
function frame(width, height, [from, to], [low, high], told) {
  const x = (at) => LEFT + ((at - from) / Math.max(to - from, 1)) * (width - LEFT - RIGHT);
  const y = (value) => height - BOTTOM - ((value - low) / Math.max(high - low, 1e-12)) * (height - TOP - BOTTOM);
  const marks = ticks(high).map((value) => svg("g", {},
    svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
    svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, told(value))));
  const count = Math.max(2, Math.min(6, Math.floor((width - LEFT) / 120)));
  const times = Array.from({ length: count }, (_, n) => from + ((to - from) * n) / (count - 1)).map((at, n) => svg(
    "text", { x: x(at), y: height - 6, "text-anchor": n === 0 ? "start" : n === count - 1 ? "end" : "middle" }, moment(at, to - from)));
  return { width, height, x, y, ground: [...marks, ...times] };
}

const DAY = 86_400_000;
const date = { month: "2-digit", day: "2-digit" };

/** A mark of time: hours within two days, days within a year, else with the year. */
const moment = (at, span) => new Date(at).toLocaleString(say.language === "zh" ? "zh-CN" : "en-GB", span > 365 * DAY
  ? { year: "numeric", ...date } : span > 2 * DAY ? date : { hour: "2-digit", minute: "2-digit", hour12: false });

/** Round values up to `high`: 1, 2 or 5 times a power of ten. */
function ticks(high) {
  const raw = high / 4, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((m) => m * power >= raw) * power;
  return Array.from({ length: Math.floor(high / step) + 1 }, (_, n) => n * step);
}

const join = (points) => points.map((point) => point.map((value) => value.toFixed(1)).join(",")).join(" ");
const line = (name, points) => svg("polyline", { class: name, points: join(points) });

function figure(word, said, { width, height, ground }, drawn, legend, under = null) {
  const drawing = svg("svg", { class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${say.word(word)}: ${said}` }, ground, drawn);
  const keys = legend.map(([name, key]) => h("span", { class: `key ${name}` }, say.word(key)));
  const read = h("span", { class: "muted read", "aria-hidden": "true" });
  if (under) drawing.addEventListener("pointermove", (event) => { read.textContent = under(event.offsetX); });
  return h("figure", {}, h("figcaption", {}, h("h3", {}, say.word(word)), keys, read), drawing);
}

/** What stood at the moment nearest to a place on the drawing. */
const readout = (course, { x }, told) => (place) => {
  if (!course.length) return "";
  const near = course.reduce((best, one) => (Math.abs(x(Date.parse(one.at)) - place) < Math.abs(x(Date.parse(best.at)) - place) ? one : best));
  const share = near.planned > 0 ? ` (${percent(near.delivered / near.planned)})` : "";
  return `${time(near.at)} · ${say.word("planned")} ${told(near.planned)} · ${say.word("delivered")} ${told(near.delivered)}${share} · ${say.word("price")} ${equivalents(near.price)}`;
};
