import { execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '../kit/ports.ts'

/** One start, in milliseconds. */
type Start = {
  /** From the call of podman until `/readyz` says 200. */
  readonly total: number
  /** From the start of the container's process. */
  readonly process: number
}

const config = (admin: number) => `
publicUrl: https://app.example.com
listen: 127.0.0.1:0
admin: { listen: "127.0.0.1:${admin}" }
provider:
  issuer: https://127.0.0.1:1
  clientId: start
  clientAuth: { method: client_secret_post, secret: { file: /etc/cloakroom/secret } }
session: { keys: [{ file: /etc/cloakroom/key }], store: { type: memory } }
routes: [{ path: /, upstream: "http://127.0.0.1:1" }]
`

/** Says how long an image takes until it is ready: the median of so many starts under the restrictions that the chart sets. */
export async function startReport(image: string, rounds: number): Promise<string> {
  const starts = await startTimes(image, rounds)
  const median = (key: keyof Start) =>
    starts.map((each) => each[key]).sort((a, b) => a - b)[starts.length >> 1]
  return `start to ready: ${median('process')} ms from the start of the process, ${median('total')} ms with what podman does before (medians of ${rounds})`
}

async function startTimes(image: string, rounds: number): Promise<Start[]> {
  const folder = mkdtempSync(join(tmpdir(), 'cloakroom-start-'))
  const port = await freePort()
  writeFileSync(join(folder, 'cloakroom.yaml'), config(port))
  writeFileSync(join(folder, 'key'), randomBytes(32).toString('base64url'))
  writeFileSync(join(folder, 'secret'), randomBytes(32).toString('base64url'))
  chmodSync(folder, 0o755)
  const starts: Start[] = []
  try {
    for (let round = 0; round < rounds; round++) starts.push(await start(image, { folder, port }))
  } finally {
    rmSync(folder, { recursive: true })
  }
  return starts
}

async function start(image: string, { folder, port }: { folder: string; port: number }): Promise<Start> {
  const name = `cloakroom-start-${process.pid}`
  const began = Date.now()
  const flags = ['--rm', '--pull=never', '--network=host', '--read-only', '--cap-drop=ALL', '--user=65532']
  const more = ['--no-healthcheck', '--name', name, '-v', `${folder}:/etc/cloakroom:ro`]
  const podman = spawn('podman', ['run', ...flags, ...more, image], { stdio: 'ignore' })
  const ended = new Promise((resolve) => podman.once('exit', resolve))
  while (!(await isReady(port))) {
    if (Date.now() - began > 20_000 || podman.exitCode !== null)
      throw new Error(`${image} did not become ready`)
    await sleep(2)
  }
  const readyAt = Date.now()
  const pid = execFileSync('podman', ['inspect', '--format', '{{.State.Pid}}', name], { encoding: 'utf8' })
  const processBegan = startOf(Number(pid))
  execFileSync('podman', ['kill', '--signal', 'TERM', name], { stdio: 'ignore' })
  await ended
  return { total: readyAt - began, process: readyAt - processBegan }
}

/** When a process began, in epoch milliseconds, to the hundredth of a second that Linux tells. */
function startOf(pid: number): number {
  const uptime = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0])
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const ticks = Number(stat.slice(stat.lastIndexOf(')')).split(' ')[20])
  return Math.round(Date.now() - uptime * 1000 + ticks * 10)
}

function isReady(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const asked = request({ host: '127.0.0.1', port, path: '/readyz', agent: false }, (response) => {
      response.resume()
      resolve(response.statusCode === 200)
    })
    asked.on('error', () => resolve(false))
    asked.end()
  })
}
