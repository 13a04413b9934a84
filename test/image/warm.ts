/**
 * Starts the proxy once, so that Node.js keeps its code compiled (`NODE_COMPILE_CACHE`): `node warm.ts MAIN`. What runs
 * at a start is in the cache as it was compiled, also the functions that are compiled when they are called first. Nothing
 * is asked of any network: provider and Redis are ports of this machine that nobody listens at.
 */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, globSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

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

async function warm(main: string): Promise<void> {
  const config = join(tmpdir(), 'warm.yaml')
  writeFileSync(config, CONFIG)
  const secrets = { SECRET: 'warm', SESSION_KEY: createHash('sha256').update('warm').digest('base64url') }
  const args = [main, 'serve', '--config', config]
  const child = spawn(process.execPath, args, {
    env: { ...process.env, ...secrets },
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
  // Read by root's copy, and by whatever user the image is run as.
  for (const file of globSync(`${process.env.NODE_COMPILE_CACHE}/*/*`)) chmodSync(file, 0o644)
}

await warm(process.argv[2]!)
