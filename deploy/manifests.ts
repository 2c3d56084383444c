/** deploy/kubernetes: what the chart renders with its defaults, for `kubectl apply -k`. */
import { helmTemplate } from '../test/support/helm.ts';

/** By name of file; kustomization.yaml and namespace.yaml, written by hand, are not among them. */
export async function renderManifests(): Promise<ReadonlyMap<string, string>> {
  const { exitCode, stdout, stderr } = await helmTemplate();
  if (exitCode !== 0) throw new Error(`the chart cannot be rendered: ${stderr}`);
  const files = new Map<string, string>();
  for (const document of stdout.split(/^---\n/m)) {
    const source = /^# Source: lvm-iscsi-csi\/templates\/(.+\.yaml)\n/.exec(document);
    const name = source?.[1];
    if (name === undefined) continue;
    files.set(name, `${files.get(name) ?? HEADER}---\n${plain(document.slice(source?.[0].length))}`);
  }
  return files;
}

const HEADER = '# Made from the chart by "npm run deploy:render"; change deploy/helm/lvm-iscsi-csi instead.\n';

/** Without the labels that say that helm manages the object. */
function plain(document: string): string {
  return `${document
    .split('\n')
    .filter((line) => !/^\s*(helm\.sh\/chart|app\.kubernetes\.io\/managed-by): /.test(line) && line.trim() !== '')
    .join('\n')}\n`;
}
