/** The metrics of one process, in a registry of their own. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { RpcObserver } from '../csi/call.ts';
import type { CommandObserver, CommandOutcome } from '../system/command-observer.ts';
import { log } from '../system/context.ts';
import { METRICS, type MetricKey, type MetricSpec } from './metric-table.ts';

type KeyOf<Type extends MetricSpec['type']> = {
  [K in MetricKey]: (typeof METRICS)[K]['type'] extends Type ? K : never;
}[MetricKey];

/** Exactly the labels of the table's entry. */
type LabelsOf<K extends MetricKey> = Readonly<Record<(typeof METRICS)[K]['labels'][number], string>>;

/** Refreshes gauges just before they are read. */
export type Collector = () => Promise<void>;

const COLLECT_TIMEOUT_MS = 5_000;

export class Metrics implements CommandObserver, RpcObserver {
  readonly #registry = new Registry();
  readonly #gauges = new Map<MetricKey, Gauge>();
  readonly #counters = new Map<MetricKey, Counter>();
  readonly #histograms = new Map<MetricKey, Histogram>();
  readonly #collectors: Collector[] = [];

  /** Metrics of the role alone, so that a node does not report volume groups of 0 bytes. */
  constructor(role: 'controller' | 'node' | 'all', version: string) {
    for (const [key, spec] of Object.entries(METRICS) as [MetricKey, MetricSpec][]) {
      if (role === 'all' || spec.role === 'both' || spec.role === role) this.#register(key, spec);
    }
    this.set('build', { version, role }, 1);
    collectDefaultMetrics({ register: this.#registry });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** One of another role's metrics is left alone. */
  set<K extends KeyOf<'gauge'>>(key: K, labels: LabelsOf<K>, value: number): void {
    this.#gauges.get(key)?.set(labels, value);
  }

  add<K extends KeyOf<'counter'>>(key: K, labels: LabelsOf<K>, value: number): void {
    this.#counters.get(key)?.inc(labels, value);
  }

  /** Called before each scrape; one that fails or takes longer than 5 s is logged, and the last values are shown. */
  onCollect(collector: Collector): void {
    this.#collectors.push(collector);
  }

  observe(program: string, kind: 'read' | 'mutate', durationMs: number, outcome: CommandOutcome): void {
    this.#histograms.get('commandDuration')?.observe({ program, kind, outcome }, durationMs / 1000);
  }

  started(method: string): (code: string) => void {
    const inFlight = this.#gauges.get('rpcInFlight');
    inFlight?.inc({ method });
    const startedAt = performance.now();
    return (code) => {
      inFlight?.dec({ method });
      this.#histograms.get('rpcDuration')?.observe({ method, code }, (performance.now() - startedAt) / 1000);
    };
  }

  /** In Prometheus's text format. */
  async render(): Promise<string> {
    await Promise.all(this.#collectors.map(collectWithDeadline));
    return await this.#registry.metrics();
  }

  #register(key: MetricKey, spec: MetricSpec): void {
    const common = { name: spec.name, help: spec.help, labelNames: [...spec.labels], registers: [this.#registry] };
    if (spec.type === 'gauge') this.#gauges.set(key, new Gauge(common));
    else if (spec.type === 'counter') this.#counters.set(key, new Counter(common));
    else this.#histograms.set(key, new Histogram({ ...common, buckets: [...(spec.buckets ?? [])] }));
  }
}

async function collectWithDeadline(collector: Collector): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`took longer than ${COLLECT_TIMEOUT_MS} ms`)), COLLECT_TIMEOUT_MS);
  });
  try {
    await Promise.race([collector(), deadline]);
  } catch (error) {
    log().warn({ err: error }, 'metrics could not be refreshed; the last values are shown');
  } finally {
    clearTimeout(timer);
  }
}
