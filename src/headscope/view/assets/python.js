// The lines of Python that give the numbers on the screen.

import { page } from "./data.js";
import { chosenHeads, state } from "./state.js";

/** A program for what is chosen; the recording is the one that the page was made of. */
export function pythonLines({ axes }) {
  const lines = ["import headscope as hs", "import torch", ""];
  const heads = chosenHeads();
  const item = state.item ? `, ${state.item}` : "";
  if (page.single) lines.push("weights = head.weights()  # head: what the page was made of");
  else {
    lines.push("# recording: what the page was made of, or hs.load(its folder)");
    if (page.layers[state.layer].derived) return `${[...lines, `weights = recording.rollout(${state.item ? `item=${state.item}` : ""})  # (positions, positions)`, `row = weights[${state.query}]  # the row of ${JSON.stringify(axes.queries.labels[state.query])}`].join("\n")}\n`;
    const names = heads.map(([l, h]) => `recording[${page.layers[l].number}, ${page.layers[l].heads[h]}${item}]`);
    lines.push(heads.length > 1 ? `heads = [${names.join(", ")}]` : `head = ${names[0]}`);
    if (heads.length === 1) lines.push("weights = head.weights()");
  }
  if (heads.length > 1) {
    lines.push(state.weigh === "values" ? "every = torch.stack([head.weights() * head.v.norm(dim=-1) for head in heads])" : "every = torch.stack([head.weights() for head in heads])");
    if (state.weigh === "values") lines.push("every = every / every.sum(-1, keepdim=True)");
    lines.push({ mean: "weights = every.mean(0)", max: "weights = every.amax(0)", count: "weights = (every >= 0.1).float().mean(0)" }[state.combine]);
    lines.push("head = heads[0]");
  } else if (state.weigh === "values") {
    lines.push("weights = weights * head.v.norm(dim=-1)  # times the length of each value", "weights = weights / weights.sum(-1, keepdim=True)");
  }
  if (state.special !== "shown") {
    lines.push("keys = [i for i, special in enumerate(head.keys.special) if not special]", "weights = weights[:, keys]");
    if (state.special === "renormalised") lines.push("weights = weights / weights.sum(-1, keepdim=True)");
  }
  const label = JSON.stringify(axes.queries.labels[state.query]);
  lines.push(`row = weights[${state.query}]  # the row of ${label}`);
  return `${lines.join("\n")}\n`;
}
