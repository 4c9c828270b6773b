// What a run sends, and when: the plan in the file that PLAN names (loadgen/spike/plan.py writes it and says what its
// fields mean), or without one a small plan made from the environment (by_hand.js).
import { SharedArray } from 'k6/data';
import { planByHand } from './by_hand.js';

const VERSION = 1;

function read() {
  if (!__ENV.PLAN) return planByHand(__ENV);
  // k6 looks for files beside the script; a person means the folder where they stand (`k6 archive` knows none).
  const here = __ENV.PWD && !__ENV.PLAN.startsWith('/') ? `${__ENV.PWD}/` : '';
  const plan = JSON.parse(open(here + __ENV.PLAN));
  if (plan.version !== VERSION) throw new Error(`a plan of version ${plan.version}; version ${VERSION} is read here`);
  return plan;
}

// Shared, as every VU runs this file and would hold all prompts otherwise. The plan comes first, its work after it.
const shared = new SharedArray('plan', () => {
  const { work, ...rest } = read();
  return [rest, ...work];
});

export const plan = shared[0];

/** What request `n` (from 0) sends: {text, max_tokens}, as Plan.prompt has it. */
export function prompt(n) {
  const { text, max_tokens } = shared[1 + (n % (shared.length - 1))];
  return { text: plan.cache_busting ? `[${plan.seed}-${n}] ${text}` : text, max_tokens };
}
