// What figures are built from: controls with labels, pictures, bars, and text that is announced.

// An element: h("p", {class: "note", onclick: f}, child, "text").
export function h(tag, properties = {}, ...children) {
  const svg = ["svg", "path", "g", "circle", "line", "rect", "text"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

let ids = 0;

// A labelled slider: {node, input, value, set(v)}; `change(value)` is called at every move.
export function slider({ label, min, max, step = "any", value, format = (v) => v.toFixed(2), change }) {
  const id = `slider-${ids++}`;
  const input = h("input", { type: "range", id, min, max, step });
  const output = h("output", { for: id });
  const show = () => {
    output.textContent = format(input.valueAsNumber);
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.addEventListener("input", () => {
    show();
    change(input.valueAsNumber);
  });
  const control = {
    node: h("div", { class: "slider" }, h("label", { for: id }, label), input, output),
    input,
    get value() {
      return input.valueAsNumber;
    },
    // Moves the slider without calling `change`.
    set(v) {
      input.value = v;
      show();
    },
  };
  control.set(value);
  return control;
}

export const button = (label, click, properties = {}) => h("button", { type: "button", onclick: click, ...properties }, label);

// A labelled list to choose one of: options are [value, text] pairs; change(value).
export function choice({ label, options, value, change }) {
  const id = `choice-${ids++}`;
  const select = h("select", { id, onchange: () => change(select.value) });
  for (const [key, text] of options) select.append(h("option", { value: key, selected: String(key) === String(value) }, text));
  return { node: h("span", {}, h("label", { for: id }, `${label} `), select), select };
}

// A picture of numbers in [0, 1], (channels, height, width), drawn at its own resolution and shown
// `width` pixels wide. describe(text) is what a screen reader is told.
export function picture([channels, height, width], shownWidth, caption = "") {
  const canvas = h("canvas", { width, height, role: "img", "aria-label": caption, style: `width:${shownWidth}px` });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const pixels = context.createImageData(width, height);
  return {
    node: h("figure", { style: `max-width:${shownWidth}px` }, canvas, ...(caption ? [h("figcaption", {}, caption)] : [])),
    canvas,
    draw(array, low = 0, high = 1) {
      const each = width * height;
      const scale = 255 / (high - low);
      for (let i = 0; i < each; i++) {
        for (let c = 0; c < 3; c++) {
          // A clamped array rounds to the nearest and cuts what leaves 0 to 255.
          pixels.data[4 * i + c] = (array[channels === 3 ? c * each + i : i] - low) * scale;
        }
        pixels.data[4 * i + 3] = 255;
      }
      context.putImageData(pixels, 0, 0);
    },
    describe(text) {
      canvas.setAttribute("aria-label", text);
    },
  };
}

// Bars of shares, one per label: draw(values, kinds), where kinds[i] is a colour's name.
export function bars(labels, caption, { width = 300, height = 130 } = {}) {
  const svg = h("svg", { viewBox: `0 0 ${width} ${height}`, width, role: "img", "aria-label": caption });
  const each = width / labels.length;
  const base = height - 18;
  const parts = labels.map((label, i) => {
    const bar = h("rect", { x: i * each + each * 0.15, width: each * 0.7, y: base, height: 0 });
    svg.append(bar, h("text", { x: (i + 0.5) * each, y: height - 5, "text-anchor": "middle" }, label));
    return bar;
  });
  svg.append(h("line", { class: "axis", x1: 0, x2: width, y1: base, y2: base }));
  return {
    node: h("figure", {}, svg, h("figcaption", {}, caption)),
    draw(values, kind = () => "muted") {
      parts.forEach((bar, i) => {
        const tall = Math.max(0, Math.min(1, values[i])) * (base - 6);
        bar.setAttribute("y", base - tall);
        bar.setAttribute("height", tall);
        bar.setAttribute("class", `fill-${kind(i)}`);
      });
      svg.setAttribute("aria-label", `${caption}: ${labels.map((l, i) => [values[i], l]).sort((a, b) => b[0] - a[0]).slice(0, 3).map(([v, l]) => `${l} ${percent(v)}`).join(", ")}`);
    },
  };
}

export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;

// Calls the newest request when the one before is done: a slow answer never piles up moves.
export function latest(work) {
  let busy = false;
  let again = false;
  return async () => {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      do {
        again = false;
        await work();
      } while (again);
    } finally {
      busy = false;
    }
  };
}

// Text for those who do not see the figure: the last of a row of changes, at most one a second.
export function announcer(pause = 1000) {
  const node = h("p", { class: "hidden", "aria-live": "polite" });
  let timer = null;
  let next = "";
  return {
    node,
    say(text) {
      next = text;
      if (timer !== null) return;
      timer = setTimeout(() => {
        timer = null;
        if (node.textContent !== next) node.textContent = next;
      }, pause);
    },
  };
}

// The place of the largest value.
export function argmax(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}
