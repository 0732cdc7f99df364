import { expect, test } from '@jest/globals';
import { runStreams } from './many-streams.js';
import { killGroup, launch, READY } from './program.js';

test('300 streams at the same time: all complete, with the answers of a quiet server', async () => {
  const program = launch();
  try {
    await program.until(READY);
    const report = await runStreams(program, 300, 20);
    expect(report.errors.slice(0, 3)).toEqual([]);
    expect(report.different.slice(0, 3)).toEqual([]);
    expect([report.complete, report.equal]).toEqual([300, 20]);
    expect(report.mostAtOnce).toBeGreaterThan(150);
  } finally {
    killGroup(program);
    await program.ended;
  }
}, 240_000);
