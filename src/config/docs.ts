/** The option table as Markdown, for docs/configuration.md (`node build.ts --docs` writes it, a unit test compares). */
import { defaultText, flagName, OPTION_KEYS, OPTIONS, type OptionSpec, type Section, variableName } from './options.ts';

const HEADINGS: Readonly<Record<Section, string>> = {
  common: 'Both roles',
  controller: 'Controller',
  node: 'Node',
};

export function renderOptionsAsMarkdown(): string {
  return (Object.keys(HEADINGS) as Section[]).map(renderSection).join('\n');
}

function renderSection(section: Section): string {
  const lines = [`### ${HEADINGS[section]}`, ''];
  lines.push('| flag | environment, file key | default | meaning | allowed |', '|---|---|---|---|---|');
  for (const key of OPTION_KEYS) {
    const spec: OptionSpec<unknown> = OPTIONS[key];
    if (spec.section !== section) continue;
    const variables = [variableName(key), spec.alias].filter((name) => name !== undefined);
    const names = [...variables, key].map((name) => `\`${name}\``).join('<br>');
    const given = spec.defaultText === undefined && spec.default !== undefined;
    const value = given ? `\`${spec.default}\`` : defaultText(key);
    const cells = [`\`--${flagName(key)} ${spec.placeholder}\``, names, value, spec.description, spec.kind.allowed];
    lines.push(`| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`);
  }
  return `${lines.join('\n')}\n`;
}
