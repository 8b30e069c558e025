// The two faces of a figure: a custom element on a page, a widget in Jupyter.
//
// A figure is {page, view}. view(figure) builds its DOM and returns {node, started}; what has to be
// computed it asks for with ask(question, args). On a page the answers are those of page(figure); in
// Jupyter the kernel gives them. FIGURES holds those of this module and STYLE the style sheet: both
// are written in front of this file when the module is put together.
import { h, announcer } from "./kit.mjs";
import { Network } from "./network.mjs";

const TYPES = { float16: [2, halves], float32: [4, (b) => new Float32Array(b)], uint8: [1, (b) => new Uint8Array(b)] };

// A packed file, unsqueezed and cut into its arrays.
async function unpack(bytes, { name, contents }) {
  const squeezed = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  let buffer;
  try {
    buffer = await new Response(squeezed).arrayBuffer();
  } catch {
    throw new Error(`${name} is damaged`);
  }
  const arrays = {};
  let at = 0;
  for (const part of contents) {
    const [bytesEach, read] = TYPES[part.dtype];
    const length = bytesEach * part.shape.reduce((a, b) => a * b, 1);
    if (at + length > buffer.byteLength) break;
    arrays[part.name] = read(buffer.slice(at, at + length));
    at += length;
  }
  if (at !== buffer.byteLength || Object.keys(arrays).length !== contents.length) {
    throw new Error(`${name} does not match the figure: ${buffer.byteLength} bytes`);
  }
  return arrays;
}

// float16 to float32, bit by bit: not every browser has Float16Array.
function halves(buffer) {
  return Float32Array.from(new Uint16Array(buffer), (h16) => {
    const [sign, exponent, fraction] = [h16 >> 15 ? -1 : 1, (h16 >> 10) & 31, h16 & 1023];
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  });
}

function watchScheme(host) {
  const apply = () => {
    const page = document.documentElement.dataset.theme;
    const jupyter = document.body.dataset.jpThemeLight;
    host.toggleAttribute("dark", page ? page === "dark" : jupyter === "false");
  };
  apply();
  const observer = new MutationObserver(apply);
  observer.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  observer.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  return () => observer.disconnect();
}

// Build a figure into a shadow root. Returns {stop, state}.
async function mount(host, shadow, { view }, { spec, arrays, ask }) {
  const stops = [watchScheme(host)];
  const { node: live, say } = announcer();
  const state = {};
  const figure = {
    spec,
    arrays,
    ask: async (question, args) => {
      try {
        const answer = await ask(question, args);
        shadow.querySelector(".error")?.remove();
        return answer;
      } catch (error) {
        fail(shadow, error);
        throw error;
      }
    },
    say,
    state,
    seed: spec.seed ?? 0,
    reduced: () => matchMedia("(prefers-reduced-motion: reduce)").matches,
    onstop: (f) => stops.push(f),
  };
  const { node, started } = view(figure);
  const box = h("div", { class: "live", role: "group", "aria-label": spec.title }, h("p", { class: "title" }, spec.title), node, live);
  // In place before the first drawing, which asks the style sheet for its colours; seen after it.
  box.hidden = true;
  shadow.append(box);
  await started;
  box.hidden = false;
  return { state, stop: () => stops.forEach((f) => f()) };
}

function fail(shadow, error) {
  shadow.querySelector(".error")?.remove();
  shadow.append(h("p", { class: "error", role: "status" }, `This figure cannot run here: ${error.message}.`));
}

class CourseFigure extends HTMLElement {
  // Each figure of a page brings a module of its own; the first defines the element, all add to it.
  static kinds = new Map();

  static kind(name) {
    if (!this.kinds.has(name)) {
      let found;
      const known = new Promise((resolve) => (found = resolve));
      this.kinds.set(name, { known, found });
    }
    return this.kinds.get(name);
  }

  connectedCallback() {
    if (this.shadowRoot) return;
    this.attachShadow({ mode: "open" }).append(h("style", {}, STYLE), h("slot"));
    // Nothing is loaded until the reader is about to see the figure.
    const watch = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      watch.disconnect();
      this.live = this.start();
    }, { rootMargin: "300px" });
    watch.observe(this);
  }

  disconnectedCallback() {
    this.mounted?.stop();
  }

  async start() {
    try {
      const { kind, spec, programs, files } = JSON.parse(this.querySelector("script[type='application/json']").textContent);
      const loaded = await Promise.all(files.map(async (file) => [file.key, await unpack(await load(file), file)]));
      const packs = Object.fromEntries(loaded);
      const networks = {};
      for (const [name, program] of Object.entries(programs)) networks[name] = new Network(program, packs[name]);
      const figure = await CourseFigure.kind(kind).known;
      const answers = figure.page({ spec, networks, arrays: packs.data ?? {} });
      const ask = (question, args) => answers[question](args);
      this.mounted = await mount(this, this.shadowRoot, figure, { spec, arrays: packs.data ?? {}, ask });
      this.state = this.mounted.state;
      this.setAttribute("ready", "");
    } catch (error) {
      this.setAttribute("failed", "");
      fail(this.shadowRoot, new Error(`${error.message}. The picture shows its first state`));
    }
  }
}

async function load({ name }) {
  let response;
  try {
    response = await fetch(new URL(name, import.meta.url));
  } catch {
    throw new Error(`${name} could not be loaded`);
  }
  if (!response.ok) throw new Error(`${name} could not be loaded (${response.status})`);
  return response.arrayBuffer();
}

// Jupyter's face: the same figure, its questions answered by the kernel that displayed it.
async function render({ model, el }) {
  const host = h("div", { class: "course-figure" });
  el.append(host);
  const shadow = host.attachShadow({ mode: "open" });
  shadow.append(h("style", {}, STYLE));
  const waiting = new Map();
  let count = 0;
  const receive = (message, buffers) => {
    const { resolve, reject } = waiting.get(message.id) ?? {};
    if (!resolve) return;
    waiting.delete(message.id);
    if (message.error) return reject(new Error(message.error));
    const reply = { ...message.plain };
    message.arrays.forEach((name, i) => {
      const view = buffers[i];
      reply[name] = new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
    });
    resolve(reply);
  };
  model.on("msg:custom", receive);
  const plain = (_, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
  const ask = (question, args) =>
    new Promise((resolve, reject) => {
      const id = `${question}-${count++}-${Math.random()}`;
      waiting.set(id, { resolve, reject });
      model.send({ id, question, args: JSON.parse(JSON.stringify(args, plain)) });
    });
  let mounted;
  try {
    const data = model.get("data");
    const arrays = data.byteLength ? await unpack(data, { name: "the data", contents: model.get("contents") }) : {};
    mounted = await mount(host, shadow, FIGURES[model.get("kind")], { spec: model.get("spec"), arrays, ask });
    host.state = mounted.state;
  } catch (error) {
    fail(shadow, error);
  }
  return () => {
    mounted?.stop();
    model.off("msg:custom", receive);
  };
}

if (!customElements.get("course-figure")) customElements.define("course-figure", CourseFigure);
for (const [kind, figure] of Object.entries(FIGURES)) customElements.get("course-figure").kind(kind).found(figure);

export default { render };
