// The cells of a plan one after the other, each with so many users who send `batch` completions at once and wait for
// all of them: a closed loop. Each point carries its cell's index.
//
//   k6 run -e TARGET=http://127.0.0.1:8000 -e USERS=1,4,16 -e BATCH=1,8 -e DURATION=5m loadgen/k6/matrix.js
//   k6 run -e TARGET=http://127.0.0.1:8000 -e PLAN=spikes/…/plan.json loadgen/k6/matrix.js
import { sleep } from 'k6';
import exec from 'k6/execution';
import { complete, model } from './lib/completions.js';
import { plan } from './lib/plan.js';
import { began, thresholds } from './lib/report.js';
import { cellScenarios } from './lib/schedule.js';

// Each cell counts from a round number, so that no two requests of a run have the same.
const NUMBERS_PER_CELL = 1e6;
const largest = Math.max(...plan.cells.map(({ batch }) => batch));

export const options = {
  scenarios: cellScenarios(plan),
  thresholds: thresholds({ ...plan, loop: 'closed' }),
  batch: largest,
  batchPerHost: largest, // k6's own limit is 6, and the rest of a batch would wait inside k6
};

export function setup() {
  return model();
}

let before = { index: -1, took_s: 0 }; // this user's last batch

export default function (model) {
  const index = Number(__ENV.CELL);
  const cell = plan.cells[index];
  const iteration = exec.scenario.iterationInTest;
  if (index === 0 && iteration === 0) began(exec.scenario.startTime / 1000 - cell.from_s);

  // A batch that is as slow as the last would not be over when its cell is: it is not begun.
  const at_s = Date.now() / 1000;
  const left_s = exec.scenario.startTime / 1000 + cell.to_s - cell.from_s - at_s;
  if (before.index === index && left_s < before.took_s) {
    sleep(Math.max(0, left_s));
    return;
  }
  const first = index * NUMBERS_PER_CELL + iteration * cell.batch;
  complete(Array.from({ length: cell.batch }, (_, i) => first + i), cell.model || model, index);
  before = { index, took_s: Date.now() / 1000 - at_s };
}
