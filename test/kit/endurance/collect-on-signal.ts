import { getHeapStatistics } from 'node:v8'

/**
 * Loaded into a measured process before its program: at SIGUSR2 it collects all garbage and says on standard error what
 * is left. Needs `--expose-gc`.
 */
process.on('SIGUSR2', () => {
  const { gc } = globalThis as { gc?: (options?: object) => void }
  // Finalizers free what the first collection only found.
  for (let round = 0; round < 3; round += 1) gc?.({ type: 'major', execution: 'sync' })
  const { rss, heapUsed, external, arrayBuffers } = process.memoryUsage()
  const contexts = getHeapStatistics().number_of_native_contexts
  const kinds: Record<string, number> = {}
  for (const kind of process.getActiveResourcesInfo()) kinds[kind] = (kinds[kind] ?? 0) + 1
  process.stderr.write(
    `${JSON.stringify({ inside: { rss, heapUsed, external, arrayBuffers, contexts, kinds } })}\n`,
  )
})
