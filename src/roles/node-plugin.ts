/** The node plugin over the host's open-iscsi. */
import type { CommonConfig, NodeConfig } from '../config-types.ts';
import { OpenIscsi } from '../iscsi/initiator/open-iscsi.ts';
import { NodePlugin } from '../node/node-plugin.ts';
import { log, withContext } from '../system/context.ts';
import type { RoleDependencies } from './role.ts';

export function nodePlugin(
  config: CommonConfig & { readonly node: NodeConfig },
  dependencies: RoleDependencies,
): NodePlugin {
  const { commands, files, metrics } = dependencies;
  const initiator = new OpenIscsi({ commands, files, config: { hostRoot: config.hostRoot, ...config.node } });
  const plugin = new NodePlugin({
    initiator,
    commands,
    files,
    config: { ...config.node, hostRoot: config.hostRoot, stateDir: config.stateDir },
  });
  metrics.onCollect(async () => {
    const own = (await initiator.sessions()).filter((session) => /:volume-[0-9a-f-]{36}$/.test(session.targetIqn));
    metrics.reset('sessions');
    for (const state of new Set(['LOGGED_IN', ...own.map((session) => session.state)])) {
      metrics.set('sessions', { state }, own.filter((session) => session.state === state).length);
    }
  });
  // Looks, cleans what an earlier boot left; a failure here is no reason not to serve: every call checks for itself.
  void withContext({ task: 'node start' }, async () => {
    try {
      await plugin.recover();
    } catch (error) {
      log().error({ err: error }, 'the state of an earlier life could not be looked through');
    }
  });
  return plugin;
}
