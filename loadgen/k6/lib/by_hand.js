// A plan for a script that is run by hand, without a plan's file. All of it can be set with -e NAME=value:
//   PEAK     requests a second at the peak (10), or users with LOOP=closed    BASE   before and after it (PEAK / 5)
//   DURATION of it all (60s); the peak is its middle half                     LOOP   open or closed (open)
//   MODEL    (the server's first)   MAX_TOKENS (64)   MAX_IN_FLIGHT (500)     SOURCE what X-Load-Source says (k6)
//   USERS and BATCH, such as 1,4,16: the cells of a matrix, in DURATION altogether (1,4 and 1,4)
const PROMPTS = [
  'Why is the first token slower than the others?',
  'Explain continuous batching to somebody who runs web servers.',
  'What does a KV cache hold, and what happens when it is full?',
  'When should I add a replica, and when a larger GPU?',
  'Name three metrics that tell me that users wait too long, and say why.',
  'How long does a new node need before it can serve a model? List the steps.',
];
const BETWEEN_CELLS_S = 5;

/** '90s', '5m', '1h', '500ms' or '90' in seconds. Throws an Error. */
export function seconds(text) {
  const [, number, unit] = /^([0-9.]+)(ms|s|m|h)?$/.exec(text) || [];
  if (!(Number(number) > 0)) throw new Error(`a duration is like 90s or 5m, not ${text}`);
  return Number(number) * { ms: 0.001, s: 1, m: 60, h: 3600 }[unit || 's'];
}

/** A spike with the fields of a plan's file; `cells` are those of a matrix. Throws an Error. */
export function planByHand(env) {
  const peak = Number(env.PEAK || 10);
  const base = Number(env.BASE || peak / 5);
  const total_s = seconds(env.DURATION || '60s');
  if (!(peak > 0 && base >= 0)) throw new Error('PEAK and BASE are numbers above 0');
  return {
    scenario: 'by hand',
    loop: env.LOOP || 'open',
    start: base,
    stages: [
      { to: base, for_s: total_s / 4 },
      { to: peak, for_s: 0 },
      { to: peak, for_s: total_s / 2 },
      { to: base, for_s: 0 },
      { to: base, for_s: total_s / 4 },
    ],
    source: env.SOURCE || 'k6',
    model: env.MODEL || '',
    work: PROMPTS.map((text) => ({ text, max_tokens: Number(env.MAX_TOKENS || 64) })),
    cells: cells(env, total_s),
    timeout_s: 120,
    max_in_flight: Number(env.MAX_IN_FLIGHT || 500),
  };
}

function cells(env, total_s) {
  const list = (text) => text.split(',').map(Number);
  const batches = list(env.BATCH || '1,4');
  const pairs = list(env.USERS || '1,4').flatMap((users) => batches.map((batch) => ({ users, batch })));
  const each_s = total_s / pairs.length;
  const gap_s = Math.min(BETWEEN_CELLS_S, each_s / 4);
  return pairs.map((pair, i) => ({ model: '', ...pair, from_s: i * each_s, to_s: (i + 1) * each_s - gap_s }));
}
