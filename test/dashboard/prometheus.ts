import { spawn } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { stringify } from 'yaml'
import { freePort } from '../kit/ports.ts'

/** One series over time: `[seconds since the epoch, value]`. */
export type Series = {
  readonly metric: Readonly<Record<string, string>>
  readonly values: readonly (readonly [at: number, value: string])[]
}

/** A real Prometheus that scrapes the admin listeners at these URLs, as the job `cloakroom`. */
export async function startPrometheus(adminUrls: readonly string[], scrapeSeconds: number) {
  const folder = await mkdtemp(join(tmpdir(), 'cloakroom-prometheus-'))
  const port = await freePort()
  const config = {
    global: { scrape_interval: `${scrapeSeconds}s` },
    scrape_configs: [
      { job_name: 'cloakroom', static_configs: [{ targets: adminUrls.map((url) => new URL(url).host) }] },
    ],
  }
  const file = join(folder, 'prometheus.yml')
  await writeFile(file, stringify(config))
  const child = spawn(
    'prometheus',
    [
      ...[`--config.file=${file}`, `--storage.tsdb.path=${join(folder, 'data')}`],
      ...[`--web.listen-address=127.0.0.1:${port}`, '--log.level=error'],
    ],
    { stdio: 'inherit' },
  )
  const ended = new Promise((resolve) => child.once('exit', resolve))
  const origin = `http://127.0.0.1:${port}`
  const isReady = () =>
    fetch(`${origin}/-/ready`).then(
      ({ ok }) => ok,
      () => false,
    )
  for (let turns = 0; turns < 100 && !(await isReady()); turns += 1) await delay(100)
  return {
    /** Throws with what Prometheus says of a query that it refuses. */
    async queryRange(query: string, { from, until, step }: { from: number; until: number; step: number }) {
      const parameters = { query, start: String(from), end: String(until), step: String(step) }
      const answer = await fetch(`${origin}/api/v1/query_range?${new URLSearchParams(parameters)}`)
      const { status, error, data } = (await answer.json()) as {
        status: string
        error?: string
        data: { result: readonly Series[] }
      }
      if (status !== 'success') throw new Error(`${error}: ${query}`)
      return data.result
    },
    /** The values of a label that the series of a metric have. */
    async labelValues({ metric, label }: { metric: string; label: string }) {
      const answer = await fetch(
        `${origin}/api/v1/label/${label}/values?${new URLSearchParams({ 'match[]': metric })}`,
      )
      const { data } = (await answer.json()) as { data?: readonly string[] }
      return data ?? []
    },
    async stop() {
      child.kill()
      await ended
      await rm(folder, { recursive: true, force: true })
    },
  }
}
