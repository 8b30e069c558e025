// Move a code, see what the decoder makes of it.
import { h, slider, button, picture, latest } from "./kit.mjs";
import { Random } from "./random.mjs";

export const latentExplorer = {
  page: ({ networks }) => ({
    decode: ({ code }) => ({ image: networks.decoder.forward(code) }),
  }),

  view({ spec, ask, say, reduced, state, seed, onstop }) {
    const { scales, names, shape, sliders } = spec;
    const n = scales.length;
    const random = new Random(seed);
    const shown = picture(shape, Math.min(280, shape[2] * Math.max(2, Math.round(250 / shape[2]))), spec.caption);
    // What the sliders show is the code in units of its spread: 0 is the mean, 1 one deviation.
    state.code = Float32Array.from(spec.start);
    let from = Float32Array.from(spec.start);
    let to = random.normals(n);

    const draw = latest(async () => {
      const { image } = await ask("decode", { code: state.code.map((v, i) => v * scales[i]) });
      shown.draw(image);
      state.drawn = (state.drawn ?? 0) + 1;
    });
    const controls = Array.from({ length: sliders }, (_, i) =>
      slider({
        label: names[i],
        min: -3,
        max: 3,
        step: 0.05,
        value: state.code[i],
        change(value) {
          state.code[i] = value;
          from = Float32Array.from(state.code);
          walk.set(0);
          draw();
          say(`${names[i]} at ${value.toFixed(1)}`);
        },
      }),
    );
    const walk = slider({
      label: "from A to B",
      min: 0,
      max: 1,
      step: 0.01,
      value: 0,
      change(t) {
        place(mix(from, to, t, spec.spherical));
        say(`${Math.round(100 * t)} % of the way from A to B`);
      },
    });
    function place(code) {
      state.code = Float32Array.from(code);
      controls.forEach((control, i) => control.set(Math.max(-3, Math.min(3, state.code[i]))));
      return draw();
    }
    let timer = null;
    const stop = () => {
      clearInterval(timer);
      timer = null;
    };
    onstop(stop);
    const buttons = [
      button("Random", () => {
        stop();
        from = random.normals(n);
        walk.set(0);
        place(from);
        say("A new random code");
      }),
      button("New B", () => {
        stop();
        to = random.normals(n);
        from = Float32Array.from(state.code);
        walk.set(0);
        say("A new goal for the walk from A to B");
      }),
      button("Walk", () => {
        if (timer !== null) return stop();
        // Without motion the walk is a jump to its end.
        if (reduced()) {
          walk.set(1);
          place(mix(from, to, 1, spec.spherical));
          return say("At B");
        }
        let t = 0;
        timer = setInterval(() => {
          t = Math.min(1, t + 0.02);
          walk.set(t);
          place(mix(from, to, t, spec.spherical));
          if (t === 1) {
            stop();
            say("At B");
          }
        }, 40);
      }),
      button("Reset", () => {
        stop();
        from = Float32Array.from(spec.start);
        walk.set(0);
        place(from);
        say("Back at the start");
      }),
    ];
    const node = h(
      "div",
      { class: "columns" },
      h("div", { class: "fixed" }, shown.node),
      h("div", {}, h("fieldset", {}, h("legend", {}, spec.legend), ...controls.map((c) => c.node)), walk.node, h("div", { class: "row" }, ...buttons)),
    );
    return { node, started: draw() };
  },
};

// Between two codes: in a straight line, or, for Gaussian noise of many dimensions, along the sphere
// near which all of it lies.
export function mix(a, b, t, spherical) {
  let [u, v] = [1 - t, t];
  if (spherical) {
    const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
    // From the middle, or between opposite or equal codes, there is no one arc.
    const angle = Math.acos(Math.max(-1, Math.min(1, dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b))))) || 0;
    if (Math.sin(angle) > 1e-3) [u, v] = [Math.sin((1 - t) * angle) / Math.sin(angle), Math.sin(t * angle) / Math.sin(angle)];
  }
  return Float32Array.from(a, (value, i) => u * value + v * b[i]);
}
