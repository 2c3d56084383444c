/** What csi-sanity's JUnit report says. */

export interface Spec {
  readonly name: string;
  readonly outcome: 'passed' | 'failed' | 'skipped';
  /** Of a failure its message, of a skip its reason; '' when passed. */
  readonly reason: string;
  readonly seconds: number;
}

/** Reason of a spec that no driver is asked to pass. */
export const PENDING = 'csi-sanity itself has it switched off (pending)';

/** @throws Error when a spec has a status that is not known: it must not be counted as anything */
export function parseReport(xml: string): Spec[] {
  // Attribute values and texts are escaped, so that neither < nor " can stand inside them.
  return [...xml.matchAll(/<testcase ([^>]*?)(?:\/>|>(.*?)<\/testcase>)/gs)]
    .map(([, attributes = '', body = '']): Spec | undefined => {
      const name = attribute(attributes, 'name');
      // Suite-level nodes such as [ReportAfterSuite] are no specs.
      if (!name.startsWith('[It] ')) return undefined;
      const status = attribute(attributes, 'status');
      const outcome = OUTCOMES[status];
      if (outcome === undefined) throw new Error(`csi-sanity's report has the unknown status "${status}" for ${name}`);
      const [, element = ''] = /<(?:skipped|failure|error) ([^>]*?)\/?>/s.exec(body) ?? [];
      const message = element === '' ? '' : attribute(element, 'message');
      return {
        name: name.slice('[It] '.length),
        outcome,
        reason: status === 'pending' ? PENDING : message.replace(/^skipped - /, ''),
        seconds: Number(attribute(attributes, 'time')),
      };
    })
    .filter((spec) => spec !== undefined);
}

const OUTCOMES: Readonly<Record<string, Spec['outcome']>> = {
  passed: 'passed',
  failed: 'failed',
  panicked: 'failed',
  timedout: 'failed',
  interrupted: 'failed',
  aborted: 'failed',
  skipped: 'skipped',
  pending: 'skipped',
};

function attribute(attributes: string, name: string): string {
  const [, value = ''] = new RegExp(`(?:^|\\s)${name}="([^"]*)"`, 's').exec(attributes) ?? [];
  return value
    .replace(/&#x([0-9A-Fa-f]+);/g, (_, hex: string) => String.fromCodePoint(Number.parseInt(hex, 16)))
    .replace(/&#([0-9]+);/g, (_, decimal: string) => String.fromCodePoint(Number(decimal)))
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&quot;', '"')
    .replaceAll('&apos;', "'")
    .replaceAll('&amp;', '&');
}
