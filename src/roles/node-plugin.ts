/** The node plugin over the host's open-iscsi. */
import { setTimeout as delay } from 'node:timers/promises';
import { ConfigError } from '../config/config.ts';
import type { CommonConfig, NodeConfig } from '../config/types.ts';
import { DriverError } from '../errors.ts';
import { readInitiatorName } from '../iscsi/initiator/initiator-name.ts';
import { OpenIscsi } from '../iscsi/initiator/open-iscsi.ts';
import type { Initiator } from '../iscsi/initiator/types.ts';
import { NodePlugin } from '../node/node-plugin.ts';
import { LOOK_EVERY_MS } from '../node/revocation.ts';
import type { Metrics } from '../observability/metrics.ts';
import { log, withContext } from '../system/context.ts';
import { formatNodeId } from '../volumes/node-id.ts';
import type { RoleDependencies } from './role.ts';

/**
 * A node id that Kubernetes cannot store does not heal: refused before anything is started. An initiator name that
 * cannot be read (yet) may: open-iscsi makes it at its first start, and Probe says what is missing until then.
 * @throws ConfigError
 */
export async function checkNodeId(
  config: CommonConfig & { readonly node: NodeConfig },
  { files }: Pick<RoleDependencies, 'files'>,
): Promise<void> {
  const { nodeName, initiatorNameFile } = config.node;
  let initiatorIqn: string;
  try {
    initiatorIqn = await readInitiatorName(files, config.hostRoot, initiatorNameFile);
  } catch (error) {
    log().warn({ err: error }, 'the initiator name of this node cannot be read');
    return;
  }
  try {
    formatNodeId({ nodeName, initiatorIqn });
  } catch (error) {
    if (!(error instanceof DriverError)) throw error;
    throw new ConfigError([`option node-name, with the name in ${initiatorNameFile}: ${error.message}`]);
  }
}

export interface RunningNodePlugin {
  readonly node: NodePlugin;
  /** Ends its background work, or leaves a step of it that hangs in the kernel to itself. */
  close(): Promise<void>;
}

/** A logout that has begun may end. */
const CLOSE_PATIENCE_MS = 5_000;

export function startNodePlugin(
  config: CommonConfig & { readonly node: NodeConfig },
  dependencies: RoleDependencies,
): RunningNodePlugin {
  const { commands, files, metrics } = dependencies;
  const initiator = new OpenIscsi({ commands, files, config: { hostRoot: config.hostRoot, ...config.node } });
  const plugin = new NodePlugin({
    initiator,
    commands,
    files,
    config: { ...config.node, hostRoot: config.hostRoot, stateDir: config.stateDir },
    onLostData: () => metrics.add('lostData', {}, 1),
  });
  sessionMetrics(metrics, initiator);
  // Looks, cleans what an earlier boot left; a failure here is no reason not to serve: every call checks for itself.
  const recovered = withContext({ task: 'node start' }, async () => {
    try {
      await plugin.recover();
    } catch (error) {
      log().error({ err: error }, 'the state of an earlier life could not be looked through');
    }
  });
  const closing = new AbortController();
  const looking = withContext({ task: 'revoked sessions' }, async () => {
    await recovered;
    while (!closing.signal.aborted) {
      try {
        await plugin.endRevoked();
      } catch (error) {
        log().warn({ err: error }, 'sessions that are down could not be looked at; tried again');
      }
      await delay(LOOK_EVERY_MS, undefined, { signal: closing.signal }).catch(() => undefined);
    }
  });
  return {
    node: plugin,
    async close() {
      closing.abort();
      await Promise.race([looking, delay(CLOSE_PATIENCE_MS, undefined, { ref: false })]);
    },
  };
}

/** A state that no session is in any more is shown with 0: series do not come and go. */
export function sessionMetrics(metrics: Metrics, initiator: Pick<Initiator, 'sessions'>): void {
  const seen = new Set(['LOGGED_IN']);
  metrics.onCollect(async () => {
    const own = (await initiator.sessions()).filter((session) => /:volume-[0-9a-f-]{36}$/.test(session.targetIqn));
    for (const { state } of own) seen.add(state);
    for (const state of seen) {
      metrics.set('sessions', { role: 'node', state }, own.filter((session) => session.state === state).length);
    }
  });
}
