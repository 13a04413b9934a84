import { setTimeout as delay } from 'node:timers/promises'
import type { Replica } from '../kit/replica.ts'

/** Environment of a replica that collects its garbage at SIGUSR2. */
export const WITH_COLLECTABLE_HEAP = {
  NODE_OPTIONS: `--expose-gc "--import=data:text/javascript,process.on('SIGUSR2',()=>globalThis.gc())"`,
}

const SCRAPE_MS = 20_000
/** A signal is handled at the next turn of the event loop; this is long enough for a slow machine too. */
const COLLECTION_MS = 300

/** The samples of one metric, by their labels as printed. */
export async function metric({ adminUrl }: Replica, name: string): Promise<Map<string, number>> {
  const answer = await fetch(`${adminUrl}/metrics`, { signal: AbortSignal.timeout(SCRAPE_MS) })
  const text = await answer.text()
  const samples = text.matchAll(new RegExp(`^${name}(\\{.*\\})? (\\S+)$`, 'gm'))
  return new Map([...samples].map(([, labels = '', value]) => [labels, Number(value)]))
}

/** Bytes of JavaScript heap in use after a full collection. */
export async function heapAfterCollection(replica: Replica): Promise<number> {
  replica.signal('SIGUSR2')
  await delay(COLLECTION_MS)
  return (await metric(replica, 'nodejs_heap_size_used_bytes')).get('') ?? Number.NaN
}
