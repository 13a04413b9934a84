import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe, it } from 'node:test'
import { demoCommand } from '../../../src/cli/demo.ts'
import { loadConfig } from '../../../src/config/load.ts'
import { listenOnLoopback } from '../../../src/demo/loopback-server.ts'

async function run(...args: string[]) {
  const written = { out: '', err: '' }
  const code = await demoCommand(args, {
    stdout: { write: (text) => (written.out += text) },
    stderr: { write: (text) => (written.err += text) },
    env: {},
  })
  return { code, ...written }
}

describe('cloakroom demo', () => {
  it('says which port is taken and how to choose another', async (t) => {
    const other = await listenOnLoopback(() => (_req, res) => res.end())
    t.after(() => other.close())
    const port = Number(new URL(other.origin).port)
    const { code, out, err } = await run('--port', String(port))
    assert.deepEqual({ code, out }, { code: 1, out: '' })
    assert.match(err, new RegExp(`port ${port} is taken .*\\n.*--port ${port + 1}`))
  })

  it('says the same of the port of its identity provider', async (t) => {
    const other = await listenOnLoopback(() => (_req, res) => res.end())
    t.after(() => other.close())
    const { code, err } = await run('--provider-port', new URL(other.origin).port)
    assert.equal(code, 1)
    assert.match(err, /is taken\. Choose another --provider-port\./)
  })

  for (const args of [['--port', '0'], ['--port', 'http'], ['--port', '70000'], ['--prot', '1'], ['extra']]) {
    it(`refuses ${args.join(' ')} with its usage`, async () => {
      const { code, err } = await run(...args)
      assert.equal(code, 1)
      assert.match(err, /usage: cloakroom demo/)
    })
  }

  it('prints its configuration and ends, with the ports that were asked for', async () => {
    const { code, out, err } = await run('--print-config', '--port', '18080')
    assert.deepEqual([code, err], [0, ''])
    assert.match(out, /publicUrl: http:\/\/localhost:18080/)
    const env = {
      CLOAKROOM_DEMO_CLIENT_SECRET: 'x',
      CLOAKROOM_DEMO_SESSION_KEY: randomBytes(32).toString('base64url'),
    }
    const { config } = loadConfig({ text: out, file: 'printed.yaml', env })
    assert.ok(config.routes.length > 3 && config.resources.orders)
    await assert.rejects(fetch(config.provider.issuer), 'nothing is left running')
  })

  it('prints its usage for --help', async () => {
    const { code, out } = await run('--help')
    assert.equal(code, 0)
    assert.match(out, /^usage: cloakroom demo/)
  })
})
