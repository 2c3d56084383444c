#!/usr/bin/env node
/** The program: command line → configuration → role. */
import { runProgram } from './program.ts';

await runProgram(process.argv.slice(2));
