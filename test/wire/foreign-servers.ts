import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { freePort } from '../kit/ports.ts'

/** A server that is not ours, running for one test on a port of 127.0.0.1. */
export type ForeignServer = {
  readonly port: number
  readonly pid: number
  /** Name and version, for the report. */
  readonly version: string
  /** Ends it, if it still runs, once its requests are over; gives the whole access log, one request a line, each character a byte. */
  stop(): Promise<string[]>
}

/** What nginx shall do. */
export type NginxSetup = {
  /** More of its `listen`, such as `http2`. */
  readonly listen?: string
  /** Lines of the `http` block, such as a `log_format access`; without one nothing is logged. */
  readonly http?: string
  /** Lines of the one `server` block. */
  readonly server: string
}

/** What Apache httpd shall do. */
export type ApacheSetup = {
  /** Debian's modules by file name, e.g. `proxy` for mod_proxy.so. */
  readonly modules: readonly string[]
  /** Lines of the configuration. */
  readonly site: string
  /** Connections that are served at the same time; 16 unless given. */
  readonly threads?: number
  /** Its access log; without one nothing is logged. */
  readonly logFormat?: string
}

const NGINX = 'nginx'
const APACHE = 'apache2'
const APACHE_MODULES = '/usr/lib/apache2/modules'
const COMES_UP_MS = 30_000
const GOES_DOWN_MS = 10_000

/** Debian keeps servers where a user's PATH does not look. */
const ENV = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` }

/** For a test's `skip` option: why it cannot run here, or false. */
export function skipWithout(program: 'nginx' | 'apache2'): string | false {
  return versionOf(program) === undefined ? `NOT RUN: ${program} is not installed on this machine` : false
}

/** Starts nginx with nothing of the machine's own configuration. Throws when it does not come up within 30 s. */
export function startNginx({ listen = '', http = '', server }: NginxSetup): Promise<ForeignServer> {
  const log = http.includes('log_format access') ? 'access_log access.log access' : 'access_log off'
  return start(NGINX, {
    // One process: nothing runs on when it is ended, and nobody's user or folder matters.
    configuration: (port, folder) => `
      daemon off; master_process off; pid nginx.pid; error_log error.log;
      events { worker_connections 4096; }
      http {
        ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${folder}/${kind};`).join(' ')}
        ${http}
        ${log};
        server { listen 127.0.0.1:${port} ${listen}; ${server} }
      }`,
    args: (folder) => ['-p', folder, '-c', 'server.conf', '-e', 'error.log'],
    gracefully: 'SIGQUIT',
  })
}

/** Starts Apache httpd with nothing of the machine's own configuration. Throws when it does not come up within 30 s. */
export function startApache({ modules, site, logFormat, threads = 16 }: ApacheSetup): Promise<ForeignServer> {
  const isRoot = process.getuid?.() === 0
  return start(APACHE, {
    configuration: (port, folder) => `
      ServerRoot ${folder}
      ServerName 127.0.0.1
      Listen 127.0.0.1:${port}
      PidFile apache.pid
      ErrorLog error.log
      DefaultRuntimeDir ${folder}
      ${['mpm_event', ...modules].map((name) => `LoadModule ${name}_module ${APACHE_MODULES}/mod_${name}.so`).join('\n')}
      ${isRoot ? 'User www-data\nGroup www-data' : ''}
      StartServers 1
      ServerLimit 1
      ThreadLimit ${threads}
      ThreadsPerChild ${threads}
      MaxRequestWorkers ${threads}
      ${site}
      ${logFormat === undefined ? '' : `LogFormat "${logFormat}" access\nCustomLog access.log access`}
    `,
    args: (folder) => ['-d', folder, '-f', 'server.conf', '-DFOREGROUND'],
    gracefully: 'SIGWINCH',
  })
}

type Launch = {
  configuration(port: number, folder: string): string
  args(folder: string): string[]
  /** Ends the process after the requests in flight. */
  readonly gracefully: NodeJS.Signals
}

async function start(program: string, launch: Launch): Promise<ForeignServer> {
  const folder = await mkdtemp(join(tmpdir(), `cloakroom-${program}-`))
  for (let attempt = 1; ; attempt += 1) {
    const port = await freePort()
    await writeFile(join(folder, 'server.conf'), launch.configuration(port, folder))
    const server = spawn(program, launch.args(folder), { env: ENV, stdio: 'ignore' })
    const killWithUs = () => server.kill('SIGTERM')
    process.once('exit', killWithUs)
    if (await comesUp(server, port)) {
      let log: string | undefined
      return {
        ...{ port, pid: server.pid!, version: versionOf(program) ?? program },
        async stop() {
          await end(server, launch.gracefully)
          process.removeListener('exit', killWithUs)
          log ??= await readFile(join(folder, 'access.log'), 'latin1').catch(() => '')
          await rm(folder, { recursive: true, force: true })
          return log.split('\n').filter((line) => line !== '')
        },
      }
    }
    await end(server, 'SIGKILL')
    process.removeListener('exit', killWithUs)
    if (attempt < 3) continue
    const reason = await readFile(join(folder, 'error.log'), 'utf8').catch(() => '')
    await rm(folder, { recursive: true, force: true })
    throw new Error(`${program} did not come up: ${reason.slice(-500)}`)
  }
}

/** True when it accepts connections; false when it ended instead, because its port was taken for example. */
async function comesUp(server: ChildProcess, port: number): Promise<boolean> {
  let hasFailed = false
  server.once('error', () => {
    hasFailed = true
  })
  const deadline = Date.now() + COMES_UP_MS
  while (!hasFailed && !hasEnded(server) && Date.now() < deadline) {
    if (await accepts(port)) return !hasEnded(server)
    await delay(20)
  }
  return false
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.on('connect', () => socket.destroy())
  })
}

async function end(server: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (server.pid === undefined || hasEnded(server)) return
  const gone = new Promise((resolve) => server.once('exit', resolve))
  server.kill(signal)
  const tooLong = setTimeout(() => server.kill('SIGKILL'), GOES_DOWN_MS)
  await gone
  clearTimeout(tooLong)
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null
}

function versionOf(program: string): string | undefined {
  const { status, stdout, stderr } = spawnSync(program, ['-v'], { env: ENV, encoding: 'utf8' })
  return status === 0 ? /[\w-]+\/[\d.]+/.exec(stdout + stderr)?.[0] : undefined
}
