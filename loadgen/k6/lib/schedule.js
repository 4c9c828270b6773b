// A plan's schedule in k6's terms: scenarios for `options.scenarios`, and when moment 0 was.
import exec from 'k6/execution';

// k6 has whole rates only, in iterations for each timeUnit; so the unit is a million seconds.
const UNIT_S = 1e6;
// A little less than DRAIN_S of loadgen/spike/plan.py, after which the run is killed.
export const GRACE_S = 58;

const duration = (s) => `${Math.round(s * 1e6)}us`;

/** The scenario of a plan without cells: rates in an open loop, users in a closed one. */
export function scenario(plan) {
  return plan.loop === 'closed' ? users(plan) : arrivals(plan);
}

function arrivals({ start, stages, max_in_flight }) {
  const stage = (to, for_s) => ({ target: Math.round(to * UNIT_S), duration: duration(for_s) });
  const peak = Math.max(start, ...stages.map(({ to }) => to));
  return {
    executor: 'ramping-arrival-rate',
    startRate: Math.round(start * UNIT_S),
    timeUnit: `${UNIT_S}s`,
    stages: [
      ...stages.map(({ to, for_s }) => stage(to, for_s)),
      // k6 loses the arrivals that are due in the last milliseconds of its last stage. So there is a second more
      // without any, after a tenth of a microsecond which rounds what is due at the very end up.
      stage(peak, 0),
      { ...stage(peak, 0), duration: '100ns' },
      stage(0, 0),
      stage(0, 1),
    ],
    // All at once: VUs that are made in mid-run take the time of what is measured. 500 of them are 190 MB.
    preAllocatedVUs: max_in_flight,
    maxVUs: max_in_flight,
    gracefulStop: `${GRACE_S}s`,
  };
}

function users({ start, stages }) {
  return {
    executor: 'ramping-vus',
    startVUs: Math.round(start),
    stages: stages.map(({ to, for_s }) => ({ target: Math.round(to), duration: duration(for_s) })),
    gracefulRampDown: `${GRACE_S}s`,
    gracefulStop: `${GRACE_S}s`,
  };
}

/** A scenario for each of the plan's cells, with its index in __ENV.CELL. What is under way at the end of a cell may
 * go on until the next begins and is given up then: no cell is measured under another's load. */
export function cellScenarios({ cells }) {
  const scenarios = {};
  cells.forEach(({ users, from_s, to_s }, i) => {
    const grace_s = i + 1 < cells.length ? Math.max(0, cells[i + 1].from_s - to_s) : GRACE_S;
    scenarios[`cell_${i}`] = {
      executor: 'constant-vus',
      vus: users,
      startTime: duration(from_s),
      duration: duration(to_s - from_s),
      gracefulStop: duration(grace_s),
      env: { CELL: String(i) },
    };
  });
  return scenarios;
}

/** The Unix time (s) of moment 0, as the first iteration of a scenario() can tell. In an open loop k6 counts from when
 * all VUs are there, which it tells nobody (10 ms late with 500 VUs, 90 with 3,000), so count back from its first
 * arrival. */
export function zero(plan) {
  return plan.loop === 'closed' ? exec.scenario.startTime / 1000 : Date.now() / 1000 - firstArrival(plan);
}

/** How many requests the schedule of an open loop has. */
export function planned({ start, stages }) {
  let level = start;
  let area = 0;
  for (const { to, for_s } of stages) {
    area += (for_s * (level + to)) / 2;
    level = to;
  }
  return Math.floor(area + 1e-9);
}

/** When the integral of the rate reaches 1, in seconds: k6's first arrival, and Plan.arrivals' too. */
function firstArrival({ start, stages }) {
  let [from_s, level, left] = [0, start, 1];
  for (const { to, for_s } of stages) {
    const area = (for_s * (level + to)) / 2;
    if (for_s > 0 && left <= area + 1e-9) {
      const slope = (to - level) / for_s;
      return from_s + (2 * left) / (level + Math.sqrt(Math.max(0, level * level + 2 * slope * left)));
    }
    [from_s, level, left] = [from_s + for_s, to, left - area];
  }
  return 0;
}
