#!/usr/bin/env node
// Opens many streams of a server at the same time and compares their answers with those of the quiet server. Build first.
//   node scripts/many-streams.mjs [streams, 2000 by default] [flags of detinfer launch]
import { runStreams } from '../dist/tests/e2e/many-streams.js';
import { killGroup, launch, READY } from '../dist/tests/e2e/program.js';

const COMPARED = 250;

const [count = '2000', ...flags] = process.argv.slice(2);
const streams = Number(count);
const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
const server = launch(...flags);
try {
  await server.until(READY);
  const report = await runStreams(server, streams, Math.min(streams, COMPARED));
  const { memory } = report;
  for (const error of [...report.errors, ...report.different].slice(0, 5)) console.error(error.slice(0, 2000));
  console.log(
    `${report.complete} of ${streams} streams complete in ${report.seconds.toFixed(0)} s, ` +
      `at most ${report.mostAtOnce} at the same time;\n` +
      `${report.equal} of ${report.equal + report.different.length} compared answers equal those of the quiet server;\n` +
      `peak memory: server ${megabytes(memory.server)} (${megabytes(memory.serverBefore)} before), ` +
      `worker ${megabytes(memory.worker)} (${megabytes(memory.workerBefore)} before)`,
  );
  process.exitCode = report.complete === streams && report.different.length === 0 ? 0 : 1;
} finally {
  killGroup(server);
}
