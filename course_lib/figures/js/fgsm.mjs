// Attack a classifier, one image at a time.
import { h, slider, choice, picture, bars, button, latest, argmax, percent } from "./kit.mjs";
import { softmax } from "./ops.mjs";

// x + a step along the sign of the gradient of the cross-entropy, `steps` times, each pixel kept
// within eps of x and in [0, 1]. One step of alpha = eps is FGSM.
export function attack(network, x, label, { eps, alpha, steps }) {
  const moved = Float32Array.from(x);
  for (let t = 0; t < steps; t++) {
    const slope = softmax(network.forward(moved));
    // p - 1 for the label, as the sum of the others: where p is nearly 1 the difference is all rounding.
    slope[label] = 0;
    slope[label] = -slope.reduce((sum, p) => sum + p, 0);
    const gradient = network.backward(slope);
    for (let i = 0; i < x.length; i++) {
      const next = moved[i] + alpha * Math.sign(gradient[i]);
      moved[i] = Math.max(0, Math.min(1, Math.max(x[i] - eps, Math.min(x[i] + eps, next))));
    }
  }
  return moved;
}

export const fgsmExplorer = {
  page: ({ networks, arrays, spec }) => {
    const each = arrays.images.length / spec.labels.length;
    return {
      attack({ index, eps, alpha, steps }) {
        const pixels = arrays.images.subarray(index * each, (index + 1) * each);
        const x = Float32Array.from(pixels, (v) => v / 255);
        const image = eps > 0 ? attack(networks.model, x, spec.labels[index], { eps, alpha, steps }) : x;
        return { image, probabilities: softmax(networks.model.forward(image)) };
      },
    };
  },

  view({ spec, arrays, ask, say, state }) {
    const { shape, labels, names, methods } = spec;
    const each = shape.reduce((a, b) => a * b, 1);
    const pixels = (index) => Float32Array.from(arrays.images.subarray(index * each, (index + 1) * each), (v) => v / 255);
    const wide = 116;
    const before = picture(shape, wide, "the image x");
    const change = picture(shape, wide, "what was added");
    const after = picture(shape, wide, "what the network sees");
    const answer = bars(names, "probability", { width: 240, height: 116 });
    const status = h("p", { class: "status" });
    Object.assign(state, { index: 0, eps: spec.start, method: Object.keys(methods)[0] });

    const draw = latest(async () => {
      const { index, eps, method } = state;
      const { steps, alpha } = methods[method];
      const { image, probabilities } = await ask("attack", { index, eps, alpha: alpha * eps, steps });
      const x = pixels(index);
      before.draw(x);
      after.draw(image);
      // Mid-grey: unchanged; white: lighter by eps, black: darker by eps.
      change.draw(image.map((v, i) => v - x[i]), -(eps || 1), eps || 1);
      const read = argmax(probabilities);
      const right = read === labels[index];
      answer.draw(probabilities, (i) => (i === labels[index] ? "real" : i === read ? "attack" : "muted"));
      const text = `It reads ${names[read]}, ${percent(probabilities[read])} sure`;
      status.replaceChildren(h("b", { class: right ? "real" : "attack" }, text), right ? ". Right." : `. It is ${names[labels[index]]}.`);
      before.describe(`The image: ${names[labels[index]]}`);
      after.describe(`The image after ${method} at epsilon ${eps.toFixed(3)}: the network reads ${names[read]}`);
      change.describe(`The change: each pixel by at most ${eps.toFixed(3)}`);
      say(`${method}, epsilon ${eps.toFixed(3)}. ${text}. ${right ? "Right." : "Wrong."}`);
      Object.assign(state, { read, image, probabilities, drawn: (state.drawn ?? 0) + 1 });
    });

    const epsilon = slider({
      label: "ε",
      min: 0,
      max: spec.most,
      step: spec.most / 100,
      value: spec.start,
      format: (v) => v.toFixed(3),
      change(value) {
        state.eps = value;
        draw();
      },
    });
    epsilon.input.setAttribute("aria-label", "epsilon: how far each pixel may move");
    const which = choice({
      label: "Attack",
      options: Object.keys(methods).map((name) => [name, name]),
      value: state.method,
      change(value) {
        state.method = value;
        draw();
      },
    });
    const thumbs = labels.map((label, index) => {
      const small = picture(shape, 34);
      small.draw(pixels(index));
      small.canvas.setAttribute("aria-hidden", "true");
      return button(small.canvas, () => pick(index), { class: "picture", "aria-label": `Image ${index + 1}: ${names[label]}`, "aria-pressed": index === 0 ? "true" : "false" });
    });
    function pick(index) {
      state.index = index;
      thumbs.forEach((thumb, i) => thumb.setAttribute("aria-pressed", String(i === index)));
      draw();
    }
    const node = h(
      "div",
      {},
      h("div", { class: "row", role: "group", "aria-label": "Pick an image" }, ...thumbs),
      h("div", { class: "columns" }, h("div", { class: "pictures fixed" }, before.node, change.node, after.node), answer.node),
      h("div", { class: "columns" }, h("div", {}, epsilon.node), h("div", { class: "fixed" }, which.node)),
      status,
    );
    return { node, started: draw() };
  },
};
