// Tells each request, when it goes out and when it has ended, in k6's own stream of points (`--out json=-`): the line
// is in the metadata of a counter, which unlike tags may have a new value each time. loadgen/spike/tools/lines.py has
// the lines' form, loadgen/spike/point.py the fields'. All times are Unix times in seconds.
import exec from 'k6/execution';
import { Counter } from 'k6/metrics';
import { planned } from './schedule.js';

const counters = {
  began: new Counter('crowdspike_began'),
  sent: new Counter('crowdspike_sent'),
  point: new Counter('crowdspike_point'),
};
const served = new Counter('crowdspike_served');

function say(kind, fields) {
  const metadata = exec.vu.metrics.metadata;
  metadata.crowdspike = JSON.stringify({ crowdspike: kind, ...fields });
  counters[kind].add(1);
  delete metadata.crowdspike; // what k6 measures by itself would carry it too
}

/** Moment 0 of the run. Once, from a scenario's first iteration. */
export function began(at_s) {
  say('began', { at_s });
}

export function sent(n, at_s, kind = 'completion') {
  say('sent', { n, at_s, kind });
}

/** A request that has ended: the fields of a Point but `by`, and `due_s`, as k6 tells no iteration when it was due. */
export function point(fields) {
  say('point', { by: 'k6', ...fields });
  if (!fields.error) served.add(1);
}

/** For a run by hand, where the exit status of k6 says whether it passed (99: it did not). With no answers at all k6
 * passes without the second. MAX_DROPPED, MIN_SERVED and MAX_FAILED (a share) set others. */
export function thresholds(plan) {
  const floor = plan.loop === 'closed' ? 1 : Math.max(1, Math.floor(0.99 * planned(plan)));
  return {
    dropped_iterations: [`count<=${__ENV.MAX_DROPPED || 0}`],
    crowdspike_served: [`count>=${__ENV.MIN_SERVED || floor}`],
    http_req_failed: [`rate<=${__ENV.MAX_FAILED || 0.01}`],
  };
}
