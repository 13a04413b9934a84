import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { type Replica, startReplica, writeReplicaConfig } from '../kit/replica.ts'
import { eventually } from '../kit/shops/deadline.ts'

async function startWith(t: TestContext, output: { stdout: number; stderr?: number }) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const route = { path: '/api', upstream: 'http://127.0.0.1:9' }
  const config = await writeReplicaConfig({ provider: provider.settings, resources: {}, routes: [route] })
  t.after(() => config.remove())
  const replica = await startReplica({ configFile: config.file, output })
  t.after(() => replica.stop('SIGKILL'))
  return { config, replica, host: new URL(config.publicUrl).host }
}

/** Asks for what is not there, which is a line each; gives the statuses it saw. */
async function askForNothing({ listenUrl }: Replica, host: string, times: number): Promise<Set<number>> {
  const statuses = new Set<number>()
  const ask = () =>
    new Promise<void>((resolve, reject) => {
      const req = request(`${listenUrl}/${'x'.repeat(600)}`, { headers: { host } }, (res) => {
        statuses.add(res.statusCode!)
        res.resume().once('end', resolve)
      })
      req.once('error', reject).end()
    })
  for (let n = 0; n < times; n += 20) await Promise.all(Array.from({ length: 20 }, ask))
  return statuses
}

async function droppedLines({ adminUrl }: Replica): Promise<number> {
  assert.equal((await fetch(`${adminUrl}/livez`)).status, 200)
  const metrics = await (await fetch(`${adminUrl}/metrics`)).text()
  return Number(/^cloakroom_log_lines_dropped_total (\d+)$/m.exec(metrics)?.[1])
}

describe('the proxy when its log cannot be written', { concurrency: true }, () => {
  test('serves, lives and stops as ever while standard output is not read', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'cloakroom-'))
    t.after(() => rmSync(folder, { recursive: true }))
    execFileSync('mkfifo', [join(folder, 'pipe')])
    const fd = openSync(join(folder, 'pipe'), constants.O_RDWR)
    t.after(() => closeSync(fd))
    const { replica, host } = await startWith(t, { stdout: fd })
    await eventually('dropped lines', async () => {
      assert.deepEqual(await askForNothing(replica, host, 400), new Set([404]))
      return (await droppedLines(replica)) > 0
    })
    const begun = performance.now()
    assert.deepEqual(await replica.stop(), { code: 0, signal: null })
    assert.ok(performance.now() - begun < 8_000)
  })

  test('outlives full disks under standard output and standard error, a refused configuration included', async (t) => {
    const full = openSync('/dev/full', 'w')
    t.after(() => closeSync(full))
    const { config, replica, host } = await startWith(t, { stdout: full, stderr: full })
    assert.deepEqual(await askForNothing(replica, host, 100), new Set([404]))
    await config.rewrite({ routes: 'none' })
    replica.signal('SIGHUP')
    const before = await eventually('dropped lines', async () => (await droppedLines(replica)) || undefined)
    await eventually('the refusal, which has a line of its own', async () => {
      const metrics = await (await fetch(`${replica.adminUrl}/metrics`)).text()
      return /^cloakroom_config_current 0$/m.test(metrics)
    })
    assert.deepEqual(await askForNothing(replica, host, 20), new Set([404]))
    await eventually('more dropped lines', async () => (await droppedLines(replica)) > before)
    assert.deepEqual(await replica.stop(), { code: 0, signal: null })
  })
})
