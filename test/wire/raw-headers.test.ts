import { REQUEST_HEADER_CASES } from './cases/request-headers.ts'
import { REQUEST_CASES } from './cases/requests.ts'
import { playTable } from './suite.ts'

playTable('requests', [...REQUEST_HEADER_CASES, ...REQUEST_CASES])
