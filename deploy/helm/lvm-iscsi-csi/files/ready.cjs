// Asks the driver's /readyz, and prints its reasons: kubelet puts what a failed probe prints into the pod's events.
const request = require('node:http').get({ host: '127.0.0.1', port: Number(process.argv[1]), path: '/readyz', timeout: 20_000 }, (response) => {
  process.exitCode = response.statusCode === 200 ? 0 : 1;
  response.pipe(process.stdout);
});
request.on('timeout', () => request.destroy(new Error('no answer within 20 s')));
request.on('error', (error) => {
  console.log(`the driver does not answer /readyz: ${error.message}`);
  process.exitCode = 1;
});
