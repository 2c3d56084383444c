/** csi-sanity itself. */
import { goTool } from '../support/go-tool.ts';

export const VERSION = 'v5.5.0';

/**
 * @returns path of the program
 * @throws Error with what to install when it cannot be built
 */
export async function csiSanity(): Promise<string> {
  return await goTool({
    name: 'csi-sanity',
    package: 'github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity',
    version: VERSION,
    go: '1.25',
    duration: 'a minute',
  });
}
