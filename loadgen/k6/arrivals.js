// Completions at the rates of a plan, whatever the answers do (open loop), or from so many users, each of whom waits
// for its answer (closed loop): the scenarios spike, staged and soak.
//
//   k6 run -e TARGET=http://127.0.0.1:8000 -e PEAK=20 -e DURATION=60s loadgen/k6/arrivals.js
//   k6 run -e TARGET=http://127.0.0.1:8000 -e PLAN=spikes/…/plan.json loadgen/k6/arrivals.js
//   k6 run -e TARGET=https://talk.example -e API_KEY=… --insecure-skip-tls-verify loadgen/k6/arrivals.js
//
// lib/by_hand.js lists the settings for a run without a plan. k6 exits with 99 when a threshold failed (lib/report.js).
// Of another scenario this is all there is to write: options, and what one iteration does.
import exec from 'k6/execution';
import { complete, model } from './lib/completions.js';
import { plan } from './lib/plan.js';
import { began, thresholds } from './lib/report.js';
import { scenario, zero } from './lib/schedule.js';

export const options = { scenarios: { arrivals: scenario(plan) }, thresholds: thresholds(plan) };

export function setup() {
  return model();
}

export default function (model) {
  const n = exec.scenario.iterationInTest;
  if (n === 0) began(zero(plan));
  complete([n], model);
}
