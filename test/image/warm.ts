/**
 * Fills a compile cache by starting the proxy: `node warm.ts MAIN CACHE`. What runs at a start is in the cache as it was
 * compiled, also the functions that are compiled when they are called first. Nothing is asked of any network: provider
 * and Redis are a port of this machine that nothing listens at.
 *
 * The same code gives the same cache, so that an image can be built again: V8's hashes get a seed, and of each file the
 * content is taken that came out of three starts, because a few bytes of some files differ in some of them.
 */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

const ALIKE = 3
const MOST_STARTS = 25

const CONFIG = `
publicUrl: https://app.example.com
listen: 127.0.0.1:0
admin: { listen: 127.0.0.1:0 }
provider:
  issuer: https://127.0.0.1:1
  clientId: warm
  clientAuth: { method: client_secret_post, secret: { env: SECRET } }
session: { keys: [{ env: SESSION_KEY }], store: { type: redis, url: "redis://127.0.0.1:1" } }
resources: { api: { scopes: [api] } }
routes: [{ path: /, upstream: "http://127.0.0.1:1", resource: api }]
`

/** How often each content of one file of the cache came out. */
type Outcomes = Map<string, { count: number; content: Buffer }>

async function warm(main: string, cache: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'warm-'))
  writeFileSync(join(folder, 'config.yaml'), CONFIG)
  const files = new Map<string, Outcomes>()
  for (let starts = 0; starts < MOST_STARTS && !isSettled(files); starts++) {
    await start(main, folder)
    for (const name of globSync('*/*', { cwd: join(folder, 'cache') })) {
      const outcomes = files.get(name) ?? new Map()
      files.set(name, count(outcomes, readFileSync(join(folder, 'cache', name))))
    }
  }
  for (const [name, outcomes] of files) {
    mkdirSync(dirname(join(cache, name)), { recursive: true })
    writeFileSync(join(cache, name), mostFrequent(outcomes).content, { mode: 0o644 })
  }
  rmSync(folder, { recursive: true })
}

/** Starts the proxy, and stops it when it listens; Node.js writes the cache when it ends. @throws when it does not start. */
async function start(main: string, folder: string): Promise<void> {
  rmSync(join(folder, 'cache'), { recursive: true, force: true })
  // The seed is none of the flags that a cache is bound to.
  const args = ['--random-seed=1', main, 'serve', '--config', join(folder, 'config.yaml')]
  const digest = createHash('sha256').update('warm').digest('base64url')
  const env = { SECRET: 'warm', SESSION_KEY: digest, NODE_COMPILE_CACHE: join(folder, 'cache') }
  const child = spawn(process.execPath, args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = once(child, 'exit')
  let said = ''
  let isTold = false
  for await (const chunk of child.stdout) {
    said += chunk
    if (!isTold && said.includes('"listening on ')) isTold = child.kill()
  }
  const [code] = await ended
  if (code !== 0) throw new Error(`the proxy did not start:\n${said}`)
}

function count(outcomes: Outcomes, content: Buffer): Outcomes {
  const digest = createHash('sha256').update(content).digest('hex')
  return outcomes.set(digest, { content, count: (outcomes.get(digest)?.count ?? 0) + 1 })
}

function isSettled(files: ReadonlyMap<string, Outcomes>): boolean {
  return files.size > 0 && [...files.values()].every((outcomes) => mostFrequent(outcomes).count >= ALIKE)
}

function mostFrequent(outcomes: Outcomes) {
  return [...outcomes.values()].reduce((most, each) => (each.count > most.count ? each : most))
}

const [main = '', cache = ''] = process.argv.slice(2)
await warm(main, cache)
