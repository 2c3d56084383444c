#!/usr/bin/env node
/**
 * The program: command line → configuration → role. Everything else is imported only when it is needed: the file
 * helper is this same file started again, and must not load a gRPC stack.
 */
import { FILE_HELPER_COMMAND } from './system/file-helper-protocol.ts';

if (process.argv[2] === FILE_HELPER_COMMAND) {
  const { runFileHelper } = await import('./system/file-helper.ts');
  runFileHelper();
} else {
  const { runProgram } = await import('./program.ts');
  await runProgram(process.argv.slice(2));
}
