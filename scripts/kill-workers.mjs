#!/usr/bin/env node
// Kills workers of a server at random moments while clients send it every kind of request, and compares all answers
// with those of the undisturbed server, bit for bit. Build first.
//   node scripts/kill-workers.mjs [kills, 500 by default] [flags of detinfer launch, such as --dp-size 2]
import { runUnderKills } from '../dist/tests/e2e/kill-load.js';
import { descendants, killGroup, launch, READY, survivors } from '../dist/tests/e2e/program.js';

const [kills = '500', ...flags] = process.argv.slice(2);
const start = Date.now();
const server = launch('--max-total-tokens', '16384', ...flags);
try {
  await server.until(READY);
  const report = await runUnderKills(server, Number(kills), (count) => {
    if (count % 25 === 0) console.log(`${count} kills after ${((Date.now() - start) / 1000).toFixed(0)} s`);
  });
  const workers = descendants(server.child.pid);
  server.child.kill('SIGTERM');
  await server.ended;
  const left = await survivors(workers, 10);
  for (const answer of report.wrong.slice(0, 5)) console.error(`wrong: ${answer.slice(0, 2000)}`);
  console.log(
    `${report.kills} kills, ${report.workerDeaths} workers lost while ready, ${report.replays} replays:\n` +
      `${report.equal} answers equal, ${report.wrong.length} wrong or lost, ${left.length} processes left behind`,
  );
  process.exitCode = report.wrong.length === 0 && left.length === 0 ? 0 : 1;
} finally {
  killGroup(server);
}
