// A network as course_lib.figures.program wrote it: a list of operations, each on earlier results.
import { OPS } from "./ops.mjs";

const size = (shape) => shape.reduce((all, one) => all * one, 1);

export class Network {
  // program: {input: shape, nodes: [{op, from: [index], shape, arrays: {w: name}, ...}], output}.
  // Index 0 is the input, i + 1 the result of node i. arrays: the weights by name.
  constructor(program, arrays) {
    this.nodes = program.nodes.map((node) => {
      const run = OPS[node.op];
      if (!run) throw new Error(`this page cannot run the operation ${node.op}`);
      const own = {};
      for (const [role, name] of Object.entries(node.arrays ?? {})) {
        if (!arrays[name]) throw new Error(`the weights ${name} are missing`);
        own[role] = arrays[name];
      }
      return { ...node, run, own };
    });
    const shapes = [program.input, ...program.nodes.map((node) => node.shape)];
    this.values = shapes.map((shape) => new Float32Array(size(shape)));
    this.slopes = shapes.map((shape) => new Float32Array(size(shape)));
    this.outputs = program.outputs;
  }

  // One example in (any array of numbers), its outputs out, which the next call overwrites.
  forwardAll(x) {
    if (x.length !== this.values[0].length) {
      throw new Error(`expected ${this.values[0].length} numbers, got ${x.length}`);
    }
    this.values[0].set(x);
    this.nodes.forEach((node, i) => {
      node.run.forward(node, node.from.map((k) => this.values[k]), this.values[i + 1], node.own);
    });
    return this.outputs.map((k) => this.values[k]);
  }

  forward(x) {
    return this.forwardAll(x)[0];
  }

  // The derivative by the input of a scalar whose derivative by the first output is `slope`, at the
  // last input of forward.
  backward(slope) {
    for (const array of this.slopes) array.fill(0);
    this.slopes[this.outputs[0]].set(slope);
    for (let i = this.nodes.length - 1; i >= 0; i--) {
      const node = this.nodes[i];
      const xs = node.from.map((k) => this.values[k]);
      const gs = node.from.map((k) => this.slopes[k]);
      node.run.backward(node, xs, this.values[i + 1], this.slopes[i + 1], gs, node.own);
    }
    return this.slopes[0];
  }
}
