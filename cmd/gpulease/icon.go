package main

// icon is what hosts may show beside the server's name, a chip seen from above. It is this
// small because the newest revision sends the server's description with every answer.
const icon = "data:image/svg+xml,%3Csvg%20xmlns='http://www.w3.org/2000/svg'%20viewBox='0%200%208%208'%3E" +
	"%3Cpath%20fill='%2353f'%20fill-rule='evenodd'%20d='M0%201h8v6H0zM2%203h4v2H2z'/%3E%3C/svg%3E"
