import { type Logger, pino } from 'pino';
import { setRootLogger } from '../../../src/system/context.ts';

/** The process’s log from now on, as parsed lines without level and time; `restore` makes it silent again. */
export function captureLog(): { readonly lines: () => Record<string, unknown>[]; readonly restore: () => void } {
  const written: string[] = [];
  setRootLogger(pino({ level: 'info', base: null }, { write: (line: string) => written.push(line) }));
  return {
    lines: () =>
      written.map((line) => {
        const { level: _level, time: _time, ...fields } = JSON.parse(line) as Record<string, unknown>;
        return fields;
      }),
    restore: () => setRootLogger(pino({ level: 'silent' }) as Logger),
  };
}
