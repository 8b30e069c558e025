// A small chart in SVG: axes, lines, areas, dots.
import { h } from "./kit.mjs";

// {x: [low, high], y: [low, high], xlabel, ylabel, caption, xticks: [[value, text]], logx}
export function chart({ x, y, xlabel = "", ylabel = "", caption, xticks, yticks, logx = false, width = 420, height = 230 }) {
  const [left, right, top, bottom] = [44, 10, 10, 34];
  const svg = h("svg", { viewBox: `0 0 ${width} ${height}`, width, role: "img", "aria-label": caption });
  let [ylow, yhigh] = y;
  const along = (v) => (logx ? Math.log(v / x[0]) / Math.log(x[1] / x[0]) : (v - x[0]) / (x[1] - x[0]));
  const px = (v) => left + along(v) * (width - left - right);
  const py = (v) => top + (1 - (v - ylow) / (yhigh - ylow)) * (height - top - bottom);
  const frame = h("g");
  const axes = () => {
    frame.replaceChildren(h("path", { class: "axis", d: `M${left},${top}V${height - bottom}H${width - right}` }));
    for (const [value, text] of xticks ?? ticks(...x)) {
      frame.append(h("text", { x: px(value), y: height - bottom + 14, "text-anchor": "middle" }, text));
    }
    for (const [value, text] of yticks ?? ticks(ylow, yhigh)) {
      frame.append(h("text", { x: left - 5, y: py(value) + 4, "text-anchor": "end" }, text));
    }
    frame.append(h("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, xlabel));
    frame.append(h("text", { x: 11, y: (top + height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 11 ${(top + height - bottom) / 2})` }, ylabel));
  };
  axes();
  svg.append(frame);
  const path = (xs, ys) => {
    let d = "";
    for (let i = 0; i < xs.length; i++) {
      d += Number.isFinite(ys[i]) ? `${d && Number.isFinite(ys[i - 1]) ? "L" : "M"}${px(xs[i]).toFixed(1)},${py(Math.max(ylow, Math.min(yhigh, ys[i]))).toFixed(1)}` : "";
    }
    return d;
  };
  return {
    node: h("figure", {}, svg),
    svg,
    px,
    py,
    // Lets the vertical axis follow the data.
    rescale(low, high) {
      [ylow, yhigh] = [low, high];
      axes();
    },
    describe(text) {
      svg.setAttribute("aria-label", text);
    },
    // A curve of class `kind` (a colour's name): draw(xs, ys).
    line(kind, extra = "") {
      const node = h("path", { class: `line ${kind} ${extra}` });
      svg.append(node);
      return { node, draw: (xs, ys) => node.setAttribute("d", path(xs, ys)) };
    },
    // The area between a curve and the lower edge.
    area(kind) {
      const node = h("path", { class: `area fill-${kind}` });
      svg.append(node);
      return {
        node,
        draw: (xs, ys) => node.setAttribute("d", `${path(xs, ys)}L${px(xs[xs.length - 1])},${py(ylow)}L${px(xs[0])},${py(ylow)}Z`),
      };
    },
    dot(kind, radius = 5) {
      const node = h("circle", { class: `fill-${kind}`, r: radius });
      svg.append(node);
      return {
        node,
        draw(a, b) {
          node.setAttribute("cx", px(a));
          node.setAttribute("cy", py(b));
        },
      };
    },
    text(words, a, b, properties = {}) {
      const node = h("text", { x: px(a), y: py(b), ...properties }, words);
      svg.append(node);
      return node;
    },
  };
}

// Round numbers between two ends.
function ticks(low, high) {
  const rough = (high - low) / 4;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  const found = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) found.push([v, v.toFixed(digits)]);
  return found;
}
