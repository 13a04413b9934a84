import cluster from 'node:cluster'

/**
 * Two workers of one program behind one port, as Node's cluster module has it: the primary accepts and hands connections
 * out in turn. Their log goes nowhere, which is a little in their favour. `MAIN` is the program, `CONFIG` its config file; `APIS` are the origins of the two APIs.
 */
const { MAIN = '', CONFIG = '', APIS = '' } = process.env
cluster.setupPrimary({
  exec: MAIN,
  args: ['serve', '--config', CONFIG],
  stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
})
const workers = APIS.split(',').map((API) => cluster.fork({ API }))
process.once('SIGTERM', () => {
  for (const worker of workers) worker.process.kill('SIGKILL')
  process.exit()
})
process.send!(workers.map((worker) => worker.process.pid))
